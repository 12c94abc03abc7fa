"""A delete whose host is lost in the middle: libvirtd is killed, or the way to it is cut, at each step of taking a guest apart.

The user sees the server gone meanwhile, and when the host is back nothing is left there or on record.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hullwright.objects.states import VmState
from hullwright.persistence import instances, jobs
from hullwright.persistence.models.hosts import hosts
from support.cloud import Cloud, Service
from support.forwarder import Forwarder, forwarded

pytestmark = [pytest.mark.slow, pytest.mark.libvirt]
FIRST, SECOND = "hull-c", "hull-d"
GONE_SECONDS = 30.0  # for a delete whose host is known to be lost
UNNOTICED_SECONDS = 60.0  # for one whose host says nothing: the keepalive of libvirt has to notice

# The conductor stops before its n-th call of a function, tells so, and goes on when it is told to. It is less patient than usual: a host
# that says nothing is given up after seconds, and what could not be done there is soon tried again.
HELD = """
import importlib, os, time
from hullwright.drivers import libvirt_pool
from hullwright.flows import leftovers
leftovers.FIRST_TRY_SECONDS = 1.0
libvirt_pool.KEEPALIVE_SECONDS, libvirt_pool.KEEPALIVE_COUNT = 1, 3
libvirt_pool.LibvirtPool.__init__.__defaults__ = (3.0,)
module, _, name = {function!r}.partition(":")
place = importlib.import_module(module)
*inner, name = name.split(".")
for each in inner:
    place = getattr(place, each)
real, calls = getattr(place, name), []
def held(*args, **kwargs):
    calls.append(name)
    if len(calls) == {nth}:
        open({reached!r}, "w").close()
        while not os.path.exists({go!r}):
            time.sleep(0.01)
    return real(*args, **kwargs)
setattr(place, name, held)
"""
MOMENTS = {
    "before-it-is-off": ("hullwright.drivers.virt.libvirt.domains:stop", 1),
    "off-and-defined": ("libvirt:virDomain.undefineFlags", 1),
    "undefined-with-disks": ("hullwright.drivers.virt.libvirt.disks:delete_all", 1),
    "between-two-disks": ("hullwright.drivers.libvirt_storage:delete_volume", 2),
    "before-its-network-entry-goes": ("hullwright.drivers.network.local.plumbing:remove_entries", 1),
}


class Held:
    """A delete that stands still at a moment."""

    def __init__(self, service: Service, parts: dict[str, str], directory: Path, moment: str) -> None:
        self.service = service
        self.cloud = service.cloud
        self._go = directory / "go"
        reached = directory / "reached"
        service.start()
        self.server_id = self.cloud.create("doomed", image=parts["image"], flavor=parts["flavor"], networks=[{"uuid": parts["network"]}])
        assert self.cloud.await_status(self.server_id, "ACTIVE")["OS-EXT-SRV-ATTR:host"] == FIRST
        service.stop()
        function, nth = MOMENTS[moment]
        service.start(HELD.format(function=function, nth=nth, reached=str(reached), go=str(self._go)))
        self.cloud.call("DELETE", f"/servers/{self.server_id}")
        self.cloud.wait(reached.exists)
        assert self.cloud.server(self.server_id)["OS-EXT-STS:task_state"] == "deleting"

    def go(self) -> None:
        """It goes on."""
        self._go.touch()

    def revive(self) -> bool:
        """Start the conductor again if libvirt's client took it along, as a service manager would: before 10.4 it does when a connection
        that several threads use falls silent (CVE-2024-4418).
        """
        conductor = self.service.conductor
        if conductor is not None and conductor.poll() == -signal.SIGSEGV:
            self.service.stop()
            self.service.start()
        return True

    def await_gone(self, seconds: float) -> None:
        """Its user sees it gone: it is in no list, holds nothing, and cannot be asked for."""
        self.cloud.wait(lambda: self.revive() and self.cloud.is_gone(self.server_id), seconds)
        listed = self.cloud.call("GET", "/servers")["servers"]
        assert self.server_id not in [server["id"] for server in listed]
        assert self.cloud.call("GET", "/network/v2.0/ports", params={"device_id": self.server_id})["ports"] == []
        with self.cloud.db.read() as connection:
            row = instances.get(connection, self.server_id, deleted=True)
        assert (row.vm_state, row.task_state, row.host) == (VmState.DELETED, None, None)

    def left(self) -> list[str]:
        """All that is left of it on both hosts: domains, files, entries of networks."""
        found = [host for host in (FIRST, SECOND) if self.server_id in self.cloud.virsh(host, "list", "--all", "--uuid")]
        found += [path for path in self.cloud.files_about(self.server_id) if "/hosts/" in path]
        for host in (FIRST, SECOND):
            for name in self.cloud.virsh(host, "net-list", "--all", "--name").split():
                found += [f"{name} on {host}" for _ in range(self.cloud.virsh(host, "net-dumpxml", name).count("name='doomed'"))]
        return found

    def is_to_be_cleaned(self) -> bool:
        """Whether what could not be done there is on record as work."""
        with self.cloud.db.read() as connection:
            return any(job.inputs.get("host") == FIRST for job in jobs.list_jobs(connection, kinds=["clean_host"]))


@pytest.fixture(params=list(MOMENTS))
def moment(request: pytest.FixtureRequest) -> str:
    """Where the delete stands when its host is lost."""
    return str(request.param)


def test_a_delete_ends_though_libvirtd_was_killed_in_its_middle(
    service: Service, parts: dict[str, str], tmp_path: Path, moment: str
) -> None:
    delete = Held(service, parts, tmp_path, moment)
    assert delete.left() != []
    daemon = service.cloud.hosts[FIRST]
    daemon.kill()
    try:
        delete.go()
        delete.await_gone(GONE_SECONDS)
    finally:
        daemon.start()
    service.cloud.rest(GONE_SECONDS)
    assert delete.is_to_be_cleaned()
    assert delete.left() == []
    service.cloud.check()


def test_a_delete_ends_though_libvirtd_was_killed_and_is_back_at_once(service: Service, parts: dict[str, str], tmp_path: Path) -> None:
    delete = Held(service, parts, tmp_path, "off-and-defined")
    daemon = service.cloud.hosts[FIRST]
    daemon.kill()
    daemon.start()
    delete.go()
    delete.await_gone(GONE_SECONDS)
    service.cloud.rest(GONE_SECONDS)
    assert delete.left() == []
    service.cloud.check()


@contextlib.contextmanager
def on_the_network(cloud: Cloud, host: str) -> Iterator[Forwarder]:
    """Meanwhile conductors reach the host by TCP."""

    def set_uri(uri: str) -> None:
        with cloud.db.write() as connection:
            connection.execute(sa.update(hosts).where(hosts.c.name == host).values(uri=uri, generation=hosts.c.generation + 1))

    with forwarded(f"{cloud.hosts[host].directory}/run/libvirt-sock") as way:
        set_uri(way.uri)
        try:
            yield way
        finally:
            set_uri(cloud.hosts[host].uri)


@pytest.mark.parametrize("moment", ["before-it-is-off", "between-two-disks"], indirect=True)
def test_a_delete_ends_though_the_connection_to_its_host_was_cut(
    service: Service, parts: dict[str, str], tmp_path: Path, moment: str
) -> None:
    with on_the_network(service.cloud, FIRST) as way:
        delete = Held(service, parts, tmp_path, moment)
        way.cut()
        delete.go()
        delete.await_gone(GONE_SECONDS)
        assert delete.left() != [], "what is there cannot be reached"
        way.mend()
        service.cloud.rest(GONE_SECONDS)
        assert delete.is_to_be_cleaned()
        assert delete.left() == []
        service.cloud.check()
        service.stop()


def test_a_delete_ends_though_the_way_to_its_host_swallows_all_that_is_sent(
    service: Service, parts: dict[str, str], tmp_path: Path
) -> None:
    with on_the_network(service.cloud, FIRST) as way:
        delete = Held(service, parts, tmp_path, "off-and-defined")
        way.stall()
        delete.go()
        began = time.monotonic()
        delete.await_gone(UNNOTICED_SECONDS)
        assert time.monotonic() - began > 1.0, "nobody told that the way was gone"
        way.mend()
        service.cloud.wait(lambda: delete.revive() and delete.left() == [], UNNOTICED_SECONDS, pause_seconds=1.0)
        service.cloud.rest()
        service.cloud.check()
        service.stop()
