"""The embedded volume service: files in a libvirt storage pool of each host."""
