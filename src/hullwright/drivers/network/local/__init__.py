"""The embedded network service: libvirt networks, DHCP entries and filters on each host."""
