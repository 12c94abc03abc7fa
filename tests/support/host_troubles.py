"""What really goes wrong on hosts: every port for displays is taken, the disk is full. Each for the time of a `with`.

Not for: fake hosts, whose faults are told to them; see house.py.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator

from hullwright.persistence import hosts

from .cloud import Cloud
from .libvirtd import AS_ROOT, Libvirtd


@contextlib.contextmanager
def no_display_ports(host: Libvirtd) -> Iterator[None]:
    """Meanwhile all ports for guests' displays are taken on the host: libvirt makes and defines guests, and refuses to start them."""
    bounds = re.findall(r"^remote_display_port_m(?:in|ax) = (\d+)$", (host.directory / "etc/qemu.conf").read_text(), re.MULTILINE)
    code = (
        "import socket, sys\n"
        f"taken = [socket.create_server(('0.0.0.0', port)) for port in range({bounds[0]}, {bounds[1]} + 1)]\n"
        "print('taken', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([*AS_ROOT, *host.inside(), sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"taken\n"
            yield
        finally:
            holder.stdin.close()


@contextlib.contextmanager
def full_disk(cloud: Cloud, host: str, megabytes: int = 8) -> Iterator[None]:
    """Meanwhile the host has no more room than that for guests and base images, and nothing of those that it had."""
    daemon = cloud.hosts[host]
    path = cloud.directory / "hosts" / host / "instances"
    inside = [*AS_ROOT, "nsenter", "-t", str(daemon.pid), "-m"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)], check=True, timeout=10)
    try:
        cloud.virsh(host, "pool-refresh", cloud.conf.libvirt.pool_name)
        yield
    finally:
        subprocess.run([*inside, "umount", "-l", str(path)], check=True, timeout=10)
        cloud.virsh(host, "pool-refresh", cloud.conf.libvirt.pool_name)

        def has_room() -> bool:
            with cloud.db.read() as connection:
                known = hosts.get(connection, host)
            return known.facts is not None and known.facts.disk_gb > 0

        cloud.wait(has_room, 30)
