"""The contract of image drivers, kept by every one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hullwright.drivers.image.contract import ImageDriver
from hullwright.drivers.image.local.driver import LocalImageDriver
from hullwright.objects.errors import ImageNotFound, ImageUnavailable
from hullwright.objects.images import Image
from support.memory_stores import MemoryImageStore

MIB = 1 << 20
MakeDriver = Callable[[], ImageDriver]


@pytest.fixture
def data() -> bytes:
    return bytes(range(256)) * (5 * MIB // 512)  # two and a half chunks


@pytest.fixture
def store() -> MemoryImageStore:
    return MemoryImageStore()


@pytest.fixture
def make(conf: Any, store: MemoryImageStore) -> MakeDriver:
    """Makes driver objects that share nothing but the records and the bytes."""
    return lambda: LocalImageDriver(conf, store)


@pytest.fixture
def image(conf: Any, store: MemoryImageStore, data: bytes) -> Image:
    """An image that the service has."""
    size, sha256, _ = LocalImageDriver(conf, store).directory.write("image-1", [data], max_bytes=10 * MIB)
    made = Image("image-1", "image", disk_format="raw", size_bytes=size, checksum_sha256=sha256)
    store.images[made.id] = made
    return made


def test_an_image_is_shown_and_read_whole(make: MakeDriver, image: Image, data: bytes) -> None:
    assert make().show(image.id) == image
    assert b"".join(make().read(image)) == data
    assert hashlib.sha256(data).hexdigest() == image.checksum_sha256


def test_it_is_read_in_chunks_of_at_most_a_mebibyte(make: MakeDriver, image: Image) -> None:
    sizes = [len(chunk) for chunk in make().read(image)]
    assert max(sizes) <= MIB
    assert sum(sizes) == image.size_bytes


@pytest.mark.parametrize("offset", [1, MIB, 2 * MIB + 7])
def test_it_is_read_from_an_offset_on(make: MakeDriver, image: Image, data: bytes, offset: int) -> None:
    assert b"".join(make().read(image, offset)) == data[offset:]


def test_from_its_end_on_there_is_nothing(make: MakeDriver, image: Image) -> None:
    assert list(make().read(image, image.size_bytes)) == []


def test_several_read_it_at_once(make: MakeDriver, image: Image, data: bytes, at_once: Callable[..., list[Any]]) -> None:
    answers = at_once(*(lambda: b"".join(make().read(image)) for _ in range(4)))
    assert answers == [data] * 4


def test_an_image_that_does_not_exist_is_not_found(make: MakeDriver) -> None:
    with pytest.raises(ImageNotFound):
        make().show("nothing")


@pytest.mark.parametrize("status", ["queued", "saving", "killed", "deleted"])
def test_an_image_that_is_not_active_is_unavailable(make: MakeDriver, image: Image, status: str) -> None:
    with pytest.raises(ImageUnavailable, match=status):
        list(make().read(replace(image, status=status)))


def test_closing_twice_is_closing_once(make: MakeDriver, image: Image) -> None:
    driver = make()
    driver.close()
    driver.close()
    assert driver.show(image.id) == image
