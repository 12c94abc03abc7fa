"""The outside world behind contracts: hypervisors, networks, volumes, images. No database, no TaskFlow; kinds do not know each other."""
