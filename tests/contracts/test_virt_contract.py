"""The contract of virt drivers, kept by every one of them. What only one of them can do is tested beside it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from hullwright.conf import opts
from hullwright.drivers.virt.contract import VirtDriver
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.drivers.virt.libvirt.driver import LibvirtDriver
from hullwright.objects.errors import FlavorDiskTooSmall, ImageCorrupt, ImageUnavailable, InstanceNotFound
from hullwright.objects.guests import GuestSpec
from hullwright.objects.images import CachedImage, Image
from hullwright.objects.states import PowerState
from support.virt_hosts import Source, guest_spec, image_of, no_progress

MIB = 1 << 20
MakeDriver = Callable[[], VirtDriver]


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.libvirt)])
def make(request: pytest.FixtureRequest) -> MakeDriver:
    """Makes driver objects for one host, which share nothing but the host."""
    if request.param == "fake":
        fake, conf = request.getfixturevalue("fake_host"), request.getfixturevalue("conf")
        return lambda: FakeDriver(fake.ref, conf)
    real = request.getfixturevalue("virt_host")
    return lambda: LibvirtDriver(real.ref, opts.load([], {"libvirt": real.options}))


@pytest.fixture
def data() -> bytes:
    """Bytes of a raw image, of several segments' worth of chunks; nothing that boots."""
    return bytes(range(256)) * (2 * MIB // 256)


@pytest.fixture
def cached(make: MakeDriver, data: bytes) -> CachedImage:
    return make().ensure_image(image_of(data), Source(data), no_progress)


def of_name(driver: VirtDriver, guest: GuestSpec) -> list[tuple[str, PowerState, bool]]:
    return [(info.uuid, info.power_state, info.ours) for info in driver.guests() if info.name == guest.name]


def test_facts_can_be_scheduled_by(make: MakeDriver) -> None:
    facts = make().facts()
    assert facts.vcpus > 0
    assert facts.memory_mb > 0
    assert facts.disk_gb >= facts.disk_free_gb >= 0
    assert facts.hostname
    assert facts.hypervisor_type
    assert facts.virt_types
    assert {"raw", "qcow2"} <= set(facts.disk_formats)


def test_facts_tell_the_images_that_lie_there_whole(make: MakeDriver, cached: CachedImage) -> None:
    assert cached.image_id in make().facts().cached_images


def test_a_spawned_guest_runs_and_is_ours(make: MakeDriver, cached: CachedImage) -> None:
    guest = guest_spec(cached)
    make().spawn(guest)
    assert make().power_state(guest.uuid) is PowerState.RUNNING
    assert of_name(make(), guest) == [(guest.uuid, PowerState.RUNNING, True)]
    assert guest.uuid in make().leftovers()


def test_spawning_twice_makes_one_guest(make: MakeDriver, cached: CachedImage) -> None:
    guest = guest_spec(cached)
    make().spawn(guest)
    make().spawn(guest)
    assert of_name(make(), guest) == [(guest.uuid, PowerState.RUNNING, True)]


def test_destroying_leaves_nothing_and_may_be_repeated(make: MakeDriver, cached: CachedImage) -> None:
    guest = guest_spec(cached)
    make().spawn(guest)
    for _ in range(2):
        make().destroy(guest.uuid)
        assert make().power_state(guest.uuid) is None
        assert of_name(make(), guest) == []
        assert guest.uuid not in make().leftovers()
        assert make().console_log(guest.uuid) == b""


def test_a_guest_can_be_made_again_after_it_was_destroyed(make: MakeDriver, cached: CachedImage) -> None:
    guest = guest_spec(cached)
    for _ in range(2):
        make().spawn(guest)
        assert make().power_state(guest.uuid) is PowerState.RUNNING
        make().destroy(guest.uuid)
    assert make().power_state(guest.uuid) is None


def test_what_was_never_there_is_gone(make: MakeDriver) -> None:
    stranger = str(uuid.uuid4())
    make().destroy(stranger)
    assert make().power_state(stranger) is None
    assert make().console_log(stranger) == b""
    assert make().leftovers() == []


def test_several_who_make_guests_at_once_make_each_once(make: MakeDriver, cached: CachedImage, at_once: Callable[..., list[Any]]) -> None:
    guests = [guest_spec(cached) for _ in range(4)]
    drivers = [make() for _ in guests]
    at_once(*(lambda d=d, g=g: d.spawn(g) for d, g in zip(drivers, guests, strict=True)))
    assert all(of_name(make(), guest) == [(guest.uuid, PowerState.RUNNING, True)] for guest in guests)
    at_once(*(lambda d=d, g=g: d.destroy(g.uuid) for d, g in zip(drivers, guests, strict=True)))
    assert make().leftovers() == []


def test_a_guest_is_switched_off_and_on(make: MakeDriver, cached: CachedImage) -> None:
    guest = guest_spec(cached)
    make().spawn(guest)
    for _ in range(2):
        make().power_off(guest.uuid, timeout_seconds=0)
        assert make().power_state(guest.uuid) is PowerState.SHUTDOWN
    for _ in range(2):
        make().power_on(guest.uuid)
        assert make().power_state(guest.uuid) is PowerState.RUNNING
    make().reboot(guest.uuid, hard=True)
    assert make().power_state(guest.uuid) is PowerState.RUNNING


def test_spawning_starts_a_guest_that_is_off(make: MakeDriver, cached: CachedImage) -> None:
    guest = guest_spec(cached)
    make().spawn(guest)
    make().power_off(guest.uuid, timeout_seconds=0)
    make().spawn(guest)
    assert of_name(make(), guest) == [(guest.uuid, PowerState.RUNNING, True)]


@pytest.mark.parametrize("switch", ["power_on", "power_off", "reboot"])
def test_a_guest_that_is_not_there_cannot_be_switched(make: MakeDriver, switch: str) -> None:
    arguments = [True] if switch == "reboot" else []
    with pytest.raises(InstanceNotFound):
        getattr(make(), switch)(str(uuid.uuid4()), *arguments)


def test_an_image_that_is_larger_than_the_flavors_disk_is_refused(make: MakeDriver, cached: CachedImage) -> None:
    guest = guest_spec(replace(cached, virtual_size_bytes=2 << 30), root_gb=1)
    with pytest.raises(FlavorDiskTooSmall):
        make().spawn(guest)
    make().destroy(guest.uuid)
    assert make().leftovers() == []


def test_an_image_is_sent_once(make: MakeDriver, data: bytes) -> None:
    image, source = image_of(data), Source(data)
    told: list[tuple[int, int]] = []
    first = make().ensure_image(image, source, lambda done, total: told.append((done, total)))
    assert (first.image_id, first.size_bytes, first.virtual_size_bytes) == (image.id, len(data), len(data))
    assert told[-1] == (len(data), len(data))
    assert told == sorted(told)
    assert make().ensure_image(image, source, no_progress) == first
    assert source.sent_bytes == len(data)


def test_several_who_want_an_image_at_once_send_it_once(make: MakeDriver, data: bytes, at_once: Callable[..., list[Any]]) -> None:
    image, source = image_of(data), Source(data)
    answers = at_once(*(lambda: make().ensure_image(image, source, no_progress) for _ in range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert source.sent_bytes == len(data)


class Stop(Exception):
    """What a progress report may raise to end a transfer."""


def test_a_transfer_that_was_stopped_goes_on_where_it_was(make: MakeDriver, data: bytes) -> None:
    image, source = image_of(data), Source(data)

    def stop(done: int, _total: int) -> None:
        if done >= MIB:
            raise Stop

    with pytest.raises(Stop):
        make().ensure_image(image, source, stop)
    before = source.sent_bytes
    assert before < len(data)
    assert make().ensure_image(image, source, no_progress).size_bytes == len(data)
    assert source.sent_bytes - before < len(data), "what had come was not sent again"


def test_an_image_whose_bytes_are_wrong_is_refused_and_can_be_sent_again(make: MakeDriver, data: bytes) -> None:
    image = image_of(data)
    with pytest.raises(ImageCorrupt):
        make().ensure_image(image, Source(b"x" + data[1:]), no_progress)
    assert make().ensure_image(image, Source(data), no_progress).size_bytes == len(data)


def test_an_image_that_is_cut_short_is_refused(make: MakeDriver, data: bytes) -> None:
    image = image_of(data)
    with pytest.raises(ImageCorrupt):
        make().ensure_image(image, Source(data[:MIB]), no_progress)
    assert make().ensure_image(image, Source(data), no_progress).size_bytes == len(data)


def test_an_error_of_the_image_service_passes_through(make: MakeDriver, data: bytes) -> None:
    class Gone:
        def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
            raise ImageUnavailable(image=image.id, reason="gone")
            yield b""

    with pytest.raises(ImageUnavailable, match="gone"):
        make().ensure_image(image_of(data), Gone(), no_progress)
