"""The way to a host: found, lost, found again, and errors told in our words."""

import importlib
from typing import Any

import pytest

from hullwright.drivers import libvirt_pool
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.objects.errors import HypervisorError, HypervisorUnavailable
from hullwright.objects.hosts import HostRef
from support.libvirtd import Libvirtd

NOWHERE = HostRef("nowhere", "qemu+unix:///system?socket=/nonexistent/socket")


def test_a_missing_binding_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(libvirt_pool, "_loaded", [])
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(HypervisorUnavailable, match=r"pip install 'hullwright\[libvirt\]'"), LibvirtPool().connection(NOWHERE, "look"):
        pass


def test_a_host_that_is_not_there_is_unavailable_with_libvirts_reason() -> None:
    with pytest.raises(HypervisorUnavailable) as caught, LibvirtPool().connection(NOWHERE, "look"):
        pass
    assert caught.value.fields["host"] == "nowhere"
    assert "/nonexistent/socket" in str(caught.value.fields["reason"])


def test_a_uri_that_libvirt_does_not_know_is_unavailable_too() -> None:
    with pytest.raises(HypervisorUnavailable), LibvirtPool().connection(HostRef("odd", "odd:///system"), "look"):
        pass


def test_a_refusal_tells_operation_host_and_reason(libvirt_host: Libvirtd) -> None:
    host = HostRef("here", libvirt_host.uri)
    with pytest.raises(HypervisorError) as caught, LibvirtPool.shared().connection(host, "find the ship") as connection:
        connection.lookupByName("no-such-ship")
    assert (caught.value.fields["operation"], caught.value.fields["host"]) == ("find the ship", "here")
    assert "no-such-ship" in str(caught.value.fields["reason"])


def test_our_own_errors_pass_unchanged(libvirt_host: Libvirtd) -> None:
    host = HostRef("here", libvirt_host.uri)
    with pytest.raises(ZeroDivisionError), LibvirtPool.shared().connection(host, "divide"):
        raise ZeroDivisionError


def test_a_connection_that_broke_is_opened_again(libvirt_host: Libvirtd) -> None:
    pool, host = LibvirtPool(), HostRef("here", libvirt_host.uri)
    with pool.connection(host, "look") as first:
        assert first.isAlive()
    libvirt_host.kill()
    libvirt_host.start()
    with pool.connection(host, "look") as second:
        assert second is not first
        assert second.getHostname() == libvirt_host.name
    pool.close()


def test_a_call_cut_by_the_host_going_down_is_unavailable_not_an_error(libvirt_host: Libvirtd) -> None:
    host = HostRef("here", libvirt_host.uri)

    def die_under_way() -> None:
        with LibvirtPool.shared().connection(host, "look") as connection:
            libvirt_host.kill()
            connection.getHostname()

    try:
        with pytest.raises(HypervisorUnavailable):
            die_under_way()
    finally:
        libvirt_host.start()
