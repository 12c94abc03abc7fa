"""The outside world behind contracts: hypervisors, networks, volumes, images. No database, no TaskFlow; the kinds do not know each other."""
