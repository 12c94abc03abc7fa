"""The way to a host: found, lost, found again, and errors told in our words."""

import importlib
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hullwright.drivers import libvirt_binding, libvirt_pool
from hullwright.drivers.libvirt_binding import load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.network.local import plumbing
from hullwright.objects.errors import HypervisorError, HypervisorUnavailable
from hullwright.objects.hosts import HostRef
from support.libvirtd import Libvirtd

NOWHERE = HostRef("nowhere", "qemu+unix:///system?socket=/nonexistent/socket")


def test_a_missing_binding_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(libvirt_binding, "_loaded", [])
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


def test_a_connection_is_one_threads_at_a_time_and_kept_for_the_next(libvirt_host: Libvirtd) -> None:
    """A daemon serves five calls of a connection at once. Here are more threads than that, all inside at the same time."""
    pool, host, all_inside = LibvirtPool(), HostRef("here", libvirt_host.uri), threading.Barrier(8)

    def use(_: int) -> Any:
        with pool.connection(host, "look") as connection:
            all_inside.wait(30)
            assert connection.getHostname() == libvirt_host.name
            all_inside.wait(30)
            return connection

    with ThreadPoolExecutor(8) as threads:
        first, second = (list(threads.map(use, range(8))) for _ in range(2))
    assert len(set(first)) == 8
    assert set(second) == set(first)


def test_connections_that_were_only_needed_once_are_closed(libvirt_host: Libvirtd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_pool, "SURPLUS_SECONDS", 0.2)
    pool, host = LibvirtPool(), HostRef("here", libvirt_host.uri)
    with pool.connection(host, "look") as first, pool.connection(host, "look") as second:
        assert first is not second
    surplus = weakref.ref(second)
    del second
    time.sleep(0.1)
    for _ in range(3):
        with pool.connection(host, "look") as connection:
            assert connection is first
        time.sleep(0.1)
    assert surplus() is None


def test_news_of_guests_go_on_whichever_connection_is_lost(libvirt_host: Libvirtd) -> None:
    """By the next connection that is lent; and none after they were refused."""
    pool, host = LibvirtPool(), HostRef("here", libvirt_host.uri)
    news: list[str] = []
    xml = "<domain type='qemu'><name>told</name><memory unit='MiB'>16</memory><os><type>hvm</type></os></domain>"

    def define() -> str:
        with pool.connection(host, "define") as connection:
            domain = connection.defineXML(xml)
            uuid = str(domain.UUIDString())
            domain.undefine()
            return uuid

    def heard(uuid: str) -> bool:
        until = time.monotonic() + 5
        while uuid not in news and time.monotonic() < until:
            time.sleep(0.01)
        return uuid in news

    pool.watch(host, news.append)
    assert heard(define())
    libvirt_host.kill()
    libvirt_host.start()
    assert heard(define())
    pool.unwatch(host, news.append)
    unheard = define()
    time.sleep(0.3)
    assert unheard not in news


def test_a_host_that_is_away_is_not_watched(libvirt_host: Libvirtd) -> None:
    pool, news = LibvirtPool(), []
    with pytest.raises(HypervisorUnavailable):
        pool.watch(NOWHERE, news.append)
    assert not pool._slot(NOWHERE.uri).watchers


class Openings:
    """`libvirt.open`, of which the first so many do not come back before they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hung: int) -> None:
        self.begun = 0
        self.hung = hung
        self.go_on = threading.Event()
        self._open = load_libvirt().open
        monkeypatch.setattr(load_libvirt(), "open", self)

    def __call__(self, uri: str) -> Any:
        self.begun += 1
        if self.begun <= self.hung:
            assert self.go_on.wait(60)
        return self._open(uri)


def test_an_opening_that_never_comes_back_does_not_shut_a_host_off_for_ever(
    libvirt_host: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    openings = Openings(monkeypatch, hung=1)
    pool, host = LibvirtPool(connect_seconds=0.2), HostRef("here", libvirt_host.uri)
    until = time.monotonic() + 20
    while True:
        try:
            with pool.connection(host, "look") as connection:
                assert connection.getHostname() == libvirt_host.name
            break
        except HypervisorUnavailable:
            assert time.monotonic() < until, "the host is shut off"
            if openings.begun == 2:  # this one comes back, however long it takes
                monkeypatch.setattr(libvirt_pool, "HUNG_FACTOR", 1000.0)
    assert openings.begun == 2
    openings.go_on.set()  # it comes back after all: nobody is disturbed
    time.sleep(0.2)
    for _ in range(3):
        with pool.connection(host, "look") as again:
            assert again.getHostname() == libvirt_host.name
    assert openings.begun == 2


def test_a_connection_given_back_serves_who_waits_for_one_that_hangs(libvirt_host: Libvirtd, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, host = LibvirtPool(connect_seconds=20), HostRef("here", libvirt_host.uri)
    first = pool.connection(host, "look")
    held = first.__enter__()
    openings = Openings(monkeypatch, hung=99)
    found: list[Any] = []

    def use() -> None:
        with pool.connection(host, "look") as connection:
            found.append(connection)

    waiting = threading.Thread(target=use)
    waiting.start()
    while not openings.begun:
        time.sleep(0.01)
    began = time.monotonic()
    first.__exit__(None, None, None)
    waiting.join(30)
    openings.go_on.set()
    assert found == [held]
    assert time.monotonic() - began < 10


def test_an_opening_that_is_refused_ends_nobody_while_others_come_about(libvirt_host: Libvirtd, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a daemon has as many clients as it may have."""
    pool, host, real = LibvirtPool(), HostRef("here", libvirt_host.uri), load_libvirt().open
    opened: list[int] = []

    def openings(uri: str) -> Any:
        opened.append(threading.get_ident())
        while len(opened) < libvirt_pool.MOST_OPENINGS:
            time.sleep(0.01)
        if threading.get_ident() == opened[0]:
            return real("qemu+unix:///system?socket=/nonexistent/socket")
        time.sleep(0.3)
        return real(uri)

    monkeypatch.setattr(load_libvirt(), "open", openings)

    def use(_: int) -> str:
        with pool.connection(host, "look") as connection:
            return str(connection.getHostname())

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(use, range(6))) == [libvirt_host.name] * 6


def test_openings_that_hang_are_few(libvirt_host: Libvirtd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_pool, "MOST_GIVEN_UP", 2)
    openings = Openings(monkeypatch, hung=99)
    pool = LibvirtPool(connect_seconds=0.01)
    for _ in range(30):
        with pytest.raises(HypervisorUnavailable, match="no answer in"), pool.connection(HostRef("here", libvirt_host.uri), "look"):
            pass
        time.sleep(0.01)
    assert openings.begun == 2
    openings.go_on.set()


def test_a_call_about_a_network_that_hangs_is_told_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plumbing, "LOCK_SECONDS", 0.1)
    with plumbing.one_at_a_time("uri", "net"):
        with pytest.raises(plumbing.Busy, match=r"have not come back for 0\.1 seconds"), plumbing.one_at_a_time("uri", "net"):
            pass
        with plumbing.one_at_a_time("uri", "other"):
            pass
    with plumbing.one_at_a_time("uri", "net"):
        pass
