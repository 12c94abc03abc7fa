"""Images on their way to a real host: whole, verified, once, however the transfer goes."""

import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hullwright.drivers.virt.libvirt import image_transfer
from hullwright.objects.errors import (
    HostDiskFull,
    HypervisorUnavailable,
    ImageCorrupt,
    ImageUnacceptable,
    ImageUnavailable,
)
from hullwright.objects.images import Image
from support.libvirtd import GuestImage, Libvirtd
from support.virt_hosts import MakeVirtHost, Source, VirtHost, image_of, no_progress

MIB = 1024**2
SIZE = 12 * MIB


class Stop(Exception):
    """The watcher of a transfer has had enough."""


def stop_at_half(done: int, total: int) -> None:
    if done >= total // 2:
        raise Stop


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


def content(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_an_image_arrives_whole_with_its_facts_and_is_not_sent_again(virt_host: VirtHost, guest_image: GuestImage) -> None:
    data = guest_image.qcow2.read_bytes()
    image, source = image_of(data, "qcow2"), Source(data)
    told: list[tuple[int, int]] = []
    cached = virt_host.driver.ensure_image(image, source, lambda done, total: told.append((done, total)))
    assert (cached.disk_format, cached.size_bytes, cached.virtual_size_bytes) == ("qcow2", len(data), 32 * MIB)
    assert content(cached.path) == image.checksum_sha256
    assert told[-1] == (len(data), len(data))
    assert virt_host.driver.ensure_image(image, source, no_progress) == cached
    assert source.sent_bytes == len(data)
    assert virt_host.volumes() == [f"base-{image.id}", f"base-{image.id}.ok"]


def test_a_transfer_that_was_stopped_goes_on_where_it_was(virt_host: VirtHost, data: bytes) -> None:
    image, source = image_of(data), Source(data)
    with pytest.raises(Stop):
        virt_host.driver.ensure_image(image, source, stop_at_half)
    assert source.sent_bytes < len(data)
    cached = virt_host.driver.ensure_image(image, source, no_progress)
    assert source.sent_bytes <= 1.1 * len(data)
    assert content(cached.path) == image.checksum_sha256


def test_a_source_that_breaks_off_leaves_a_transfer_that_goes_on(virt_host: VirtHost, data: bytes) -> None:
    class Breaking(Source):
        def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
            for chunk in super().read(image, offset):
                if self.sent_bytes > 5 * MIB:
                    raise ImageUnavailable(image=image.id, reason="the image service went away")
                yield chunk

    image, breaking, whole = image_of(data), Breaking(data), Source(data)
    with pytest.raises(ImageUnavailable):
        virt_host.driver.ensure_image(image, breaking, no_progress)
    virt_host.driver.ensure_image(image, whole, no_progress)
    assert whole.sent_bytes <= len(data) - 4 * MIB


def test_a_killed_transfer_is_taken_over_after_a_while(make_virt_host: MakeVirtHost, data: bytes, tmp_path: Path) -> None:
    host = make_virt_host(image_stale_seconds=1.0)
    image, source = image_of(data), Source(data)
    (tmp_path / "data").write_bytes(data)
    code = (
        "from hullwright.drivers.virt.libvirt import image_transfer\n"
        "image_transfer.SEGMENT_BYTES, image_transfer.SEGMENT_SECONDS = 1 << 20, 0.0\n"
        "def kill(done, total):\n"
        "    if done >= total * 3 // 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "driver.ensure_image(Image(**arguments['image']), Source(open(arguments['data'], 'rb').read()), kill)\n"
    )
    child = host.child(code, {"image": image.to_dict(), "data": str(tmp_path / "data")})
    assert child.end()[0] == -signal.SIGKILL
    waited: list[int] = []
    cached = host.driver.ensure_image(image, source, lambda done, _total: waited.append(done))
    assert content(cached.path) == image.checksum_sha256
    # The child sent three quarters; what is sent twice is at most the segment under way.
    assert source.sent_bytes <= 0.35 * len(data)
    assert len(host.volumes()) == 2


def test_two_processes_and_two_threads_make_one_image(virt_host: VirtHost, data: bytes, tmp_path: Path) -> None:
    image = image_of(data)
    (tmp_path / "data").write_bytes(data)
    code = (
        "source = Source(open(arguments['data'], 'rb').read())\n"
        "slowly = lambda done, total: time.sleep(0.002)\n"
        "cached = driver.ensure_image(Image(**arguments['image']), source, slowly)\n"
        "print(json.dumps([source.sent_bytes, cached.path]))\n"
    )
    children = [virt_host.child(code, {"image": image.to_dict(), "data": str(tmp_path / "data")}) for _ in range(2)]
    sources = [Source(data), Source(data)]
    threads = [threading.Thread(target=virt_host.driver.ensure_image, args=(image, source, no_progress)) for source in sources]
    for thread in threads:
        thread.start()
    ends = [child.end() for child in children]
    for thread in threads:
        thread.join(60)
    assert [code for code, _ in ends] == [0, 0], ends
    told = [json.loads(out) for _, out in ends]
    assert sum(sent for sent, _ in told) + sum(source.sent_bytes for source in sources) == len(data)
    assert len({path for _, path in told}) == 1
    assert content(told[0][1]) == image.checksum_sha256


def test_a_waiter_can_be_stopped(make_virt_host: MakeVirtHost, data: bytes) -> None:
    host = make_virt_host()
    image, go_on, begun = image_of(data), threading.Event(), threading.Event()

    def hold(_done: int, _total: int) -> None:
        begun.set()
        assert go_on.wait(30)

    holder = threading.Thread(target=host.driver.ensure_image, args=(image, Source(data), hold))
    holder.start()
    try:
        assert begun.wait(30)

        def stop(_done: int, _total: int) -> None:
            raise Stop

        with pytest.raises(Stop):
            host.driver.ensure_image(image, Source(data), stop)
    finally:
        go_on.set()
        holder.join(60)
    assert host.volumes() == [f"base-{image.id}", f"base-{image.id}.ok"]


def test_corrupt_bytes_are_refused_and_leave_nothing(virt_host: VirtHost, data: bytes) -> None:
    image = image_of(data)
    bad = bytearray(data)
    bad[-1] ^= 1
    with pytest.raises(ImageCorrupt, match="sha256"):
        virt_host.driver.ensure_image(image, Source(bytes(bad)), no_progress)
    assert virt_host.volumes() == []
    assert content(virt_host.driver.ensure_image(image, Source(data), no_progress).path) == image.checksum_sha256


def test_bytes_that_went_bad_on_the_host_before_a_resumption_are_found(virt_host: VirtHost, data: bytes) -> None:
    image = image_of(data)
    with pytest.raises(Stop):
        virt_host.driver.ensure_image(image, Source(data), stop_at_half)
    with (virt_host.directory / f"base-{image.id}").open("r+b") as file:
        file.write(b"\0" * 4096)
    with pytest.raises(ImageCorrupt):
        virt_host.driver.ensure_image(image, Source(data), no_progress)
    assert virt_host.volumes() == []


@pytest.mark.parametrize(("length", "what"), [(SIZE - 1, "ended after"), (SIZE + 1, "longer than"), (100, "ended after")])
def test_a_source_of_the_wrong_length_is_corrupt(virt_host: VirtHost, data: bytes, length: int, what: str) -> None:
    sent = (data + b"x")[:length]
    with pytest.raises(ImageCorrupt, match=what):
        virt_host.driver.ensure_image(image_of(data), Source(sent), no_progress)
    assert virt_host.volumes() == []


def test_an_image_that_names_a_file_of_the_host_is_refused_unsent(virt_host: VirtHost, tmp_path: Path) -> None:
    evil = tmp_path / "evil.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(evil)], check=True)
    data = evil.read_bytes()
    with pytest.raises(ImageUnacceptable, match="backing file"):
        virt_host.driver.ensure_image(image_of(data, "qcow2"), Source(data), no_progress)
    with pytest.raises(ImageUnacceptable, match="declared raw"):
        virt_host.driver.ensure_image(image_of(data, "raw"), Source(data), no_progress)
    assert virt_host.volumes() == []


def test_who_was_thought_dead_lets_go_of_what_another_finished(make_virt_host: MakeVirtHost, data: bytes) -> None:
    host = make_virt_host(image_stale_seconds=1.0)
    image, go_on, begun = image_of(data), threading.Event(), threading.Event()
    bad = data[: SIZE // 2] + b"\0" * (SIZE // 2)  # and it has a bad source, too
    ends: list[object] = []

    def freeze(done: int, total: int) -> None:
        if done >= total // 2 and not begun.is_set():
            begun.set()
            assert go_on.wait(30)

    def slow() -> None:
        ends.append(host.driver.ensure_image(image, Source(bad), freeze))

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        assert begun.wait(30)
        cached = host.driver.ensure_image(image, Source(data), no_progress)
    finally:
        go_on.set()
        thread.join(60)
    assert ends == [cached]
    assert content(cached.path) == image.checksum_sha256
    assert host.volumes() == [f"base-{image.id}", f"base-{image.id}.ok"]


def test_marks_that_a_crash_left_empty_mean_nothing(make_virt_host: MakeVirtHost, data: bytes) -> None:
    host = make_virt_host(image_stale_seconds=1.0)
    host.driver.facts()  # makes the pool
    image, source = image_of(data), Source(data)
    base = host.directory / f"base-{image.id}"
    base.write_bytes(b"\0" * len(data))
    for mark in ("ok", "part-3"):
        base.with_name(f"{base.name}.{mark}").write_bytes(b"")
    assert len(host.volumes()) == 3
    cached = host.driver.ensure_image(image, source, no_progress)
    assert content(cached.path) == image.checksum_sha256
    assert source.sent_bytes == len(data)
    assert host.volumes() == [base.name, f"{base.name}.ok"]


def test_an_image_whose_bytes_were_deleted_behind_our_back_is_sent_again(virt_host: VirtHost, data: bytes) -> None:
    image, source = image_of(data), Source(data)
    (virt_host.directory / Path(virt_host.driver.ensure_image(image, source, no_progress).path).name).unlink()
    assert virt_host.volumes() == [f"base-{image.id}.ok"]
    cached = virt_host.driver.ensure_image(image, source, no_progress)
    assert content(cached.path) == image.checksum_sha256
    assert source.sent_bytes == 2 * len(data)


def test_an_image_without_checksum_is_taken_by_its_length_and_one_with_md5_by_that(virt_host: VirtHost, data: bytes) -> None:
    plain = replace(image_of(data), checksum_sha256=None)
    assert virt_host.driver.ensure_image(plain, Source(data), no_progress).size_bytes == len(data)
    md5 = replace(image_of(data), checksum_sha256=None, checksum_md5=hashlib.md5(b"other").hexdigest())
    with pytest.raises(ImageCorrupt, match="md5"):
        virt_host.driver.ensure_image(md5, Source(data), no_progress)


def test_an_image_larger_than_the_room_is_refused_at_once(make_virt_host: MakeVirtHost, small_directory: Path, data: bytes) -> None:
    host = make_virt_host(pool_path=str(small_directory), disk_cache="default")
    source = Source(data * 2)
    with pytest.raises(HostDiskFull, match="are free"):
        host.driver.ensure_image(image_of(data * 2), source, no_progress)
    assert source.sent_bytes <= 128 * 1024
    assert host.volumes() == []


def test_a_disk_that_fills_up_under_way_leaves_nothing_half_done(
    make_virt_host: MakeVirtHost, small_directory: Path, data: bytes, libvirt_host: Libvirtd
) -> None:
    host = make_virt_host(pool_path=str(small_directory), disk_cache="default")

    def eat(done: int, _total: int) -> None:
        if done and not eaten:
            eaten.append(done)
            inside = Path(f"/proc/{libvirt_host.pid}/root{small_directory}/eater")
            inside.write_bytes(b"x" * (10 * MIB))

    eaten: list[int] = []
    with pytest.raises(HostDiskFull, match="No space left on device"):
        host.driver.ensure_image(image_of(data), Source(data), eat)
    assert host.volumes() == ["eater"]


def test_a_host_that_dies_under_way_is_unavailable_and_the_transfer_goes_on_later(
    virt_host: VirtHost, libvirt_host: Libvirtd, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_transfer, "SEGMENT_BYTES", MIB)
    monkeypatch.setattr(image_transfer, "SEGMENT_SECONDS", 0.0)
    image, source = image_of(data), Source(data)

    def kill_at_half(done: int, total: int) -> None:
        if done >= total // 2 and not killed:
            killed.append(done)
            libvirt_host.kill()

    killed: list[int] = []
    try:
        with pytest.raises(HypervisorUnavailable):
            virt_host.driver.ensure_image(image, source, kill_at_half)
        assert killed
        with pytest.raises(HypervisorUnavailable):
            virt_host.driver.facts()
    finally:
        libvirt_host.start()
    cached = virt_host.driver.ensure_image(image, source, no_progress)
    assert content(cached.path) == image.checksum_sha256
    assert source.sent_bytes <= 1.3 * len(data)
