"""Hosts behind libvirt, without an agent: all that happens on a host happens through its libvirtd, which may be remote."""
