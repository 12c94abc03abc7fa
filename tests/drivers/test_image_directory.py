"""The directory of images: whole or not there, whatever goes wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hullwright.drivers.image.local import store as store_module
from hullwright.drivers.image.local.driver import LocalImageDriver
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.objects.errors import (
    ImageNotFound,
    ImageStorageError,
    ImageStorageFull,
    ImageTooLarge,
    ImageUnavailable,
    ImageUploadConflict,
)
from hullwright.objects.images import Image
from support.memory_stores import MemoryImageStore


@pytest.fixture
def images(tmp_path: Path) -> ImageDirectory:
    return ImageDirectory(tmp_path / "images")


def names(images: ImageDirectory) -> list[str]:
    return sorted(os.listdir(images.directory))


def test_an_upload_tells_size_and_checksums(images: ImageDirectory) -> None:
    answer = images.write("one", [b"he", b"", b"llo"], max_bytes=5)
    assert answer == (5, hashlib.sha256(b"hello").hexdigest(), hashlib.md5(b"hello").hexdigest())
    assert images.path("one").read_bytes() == b"hello"
    assert names(images) == ["one"]


def test_an_image_with_too_many_bytes_leaves_nothing(images: ImageDirectory) -> None:
    with pytest.raises(ImageTooLarge) as caught:
        images.write("one", [b"hello", b"!"], max_bytes=5)
    assert caught.value.code == 413
    assert names(images) == []


def test_a_client_that_goes_away_leaves_nothing_and_the_earlier_image_stays(images: ImageDirectory) -> None:
    images.write("one", [b"earlier"], max_bytes=99)

    def cut() -> Iterator[bytes]:
        yield b"later"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        images.write("one", cut(), max_bytes=99)
    assert names(images) == ["one"]
    assert b"".join(images.open_at("one")) == b"earlier"


def test_a_full_disk_is_told_and_leaves_nothing(images: ImageDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(handle: int, data: Any) -> int:
        if len(data) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    monkeypatch.setattr(store_module.os, "write", full)
    with pytest.raises(ImageStorageFull, match="No space left") as caught:
        images.write("one", [b"hello", b"you"], max_bytes=99)
    assert caught.value.code == 413
    assert names(images) == []


def test_short_writes_lose_no_byte(images: ImageDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(store_module.os, "write", lambda handle, data: write(handle, data[:2]))
    assert images.write("one", [b"hello"], max_bytes=99)[0] == 5
    assert b"".join(images.open_at("one")) == b"hello"


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ImageStorageError, match="cannot be stored"):
        ImageDirectory(tmp_path / "file").write("one", [b"x"], max_bytes=9)
    assert (tmp_path / "file").read_text() == "not a directory"


def test_two_uploads_of_one_image_conflict_and_the_first_wins(images: ImageDirectory) -> None:
    def first() -> Iterator[bytes]:
        yield b"fi"
        with pytest.raises(ImageUploadConflict):
            images.write("one", [b"second"], max_bytes=99)
        yield b"rst"

    images.write("one", first(), max_bytes=99)
    assert b"".join(images.open_at("one")) == b"first"
    assert names(images) == ["one"]


def test_what_a_killed_upload_left_goes_with_the_next_one(images: ImageDirectory) -> None:
    code = """
        import os, signal, sys
        from hullwright.drivers.image.local.store import ImageDirectory
        def chunks():
            yield b"half"
            os.kill(os.getpid(), signal.SIGKILL)
        ImageDirectory(sys.argv[1]).write("one", chunks(), 99)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(images.directory)], timeout=30, check=False)
    assert done.returncode == -9
    assert names(images) == ["one.part"]
    images.write("two", [b"x"], max_bytes=9)
    assert names(images) == ["two"]


def test_an_upload_under_way_is_not_swept_away(images: ImageDirectory) -> None:
    def slow() -> Iterator[bytes]:
        yield b"sl"
        images.write("other", [b"x"], max_bytes=9)
        yield b"ow"

    images.write("one", slow(), max_bytes=9)
    assert b"".join(images.open_at("one")) == b"slow"


def test_a_deleted_image_is_read_to_its_end_by_who_has_begun(images: ImageDirectory) -> None:
    images.write("one", [b"hello"], max_bytes=9)
    chunks = images.open_at("one")
    for _ in range(2):
        images.delete("one")
    assert b"".join(chunks) == b"hello"
    with pytest.raises(ImageNotFound):
        images.open_at("one")


@pytest.mark.parametrize("name", ["../etc/passwd", "a/b", ".", "..", "", "a.part", ".hidden", "x" * 65])
def test_an_id_that_is_no_file_name_is_not_found(images: ImageDirectory, name: str) -> None:
    with pytest.raises(ImageNotFound):
        images.path(name)


def test_a_link_in_the_directory_is_not_followed(images: ImageDirectory, tmp_path: Path) -> None:
    images.write("one", [b"x"], max_bytes=9)
    (tmp_path / "secret").write_text("secret")
    images.path("two").symlink_to(tmp_path / "secret")
    with pytest.raises(ImageStorageError):
        images.open_at("two")


def test_a_file_that_lost_bytes_is_unavailable(conf: Any) -> None:
    driver = LocalImageDriver(conf, MemoryImageStore())
    driver.directory.write("one", [b"hello"], max_bytes=9)
    with pytest.raises(ImageUnavailable, match="5 bytes, its record says 6"):
        list(driver.read(Image("one", "one", size_bytes=6)))


def test_an_image_whose_file_is_gone_is_unavailable(conf: Any) -> None:
    driver = LocalImageDriver(conf, MemoryImageStore())
    with pytest.raises(ImageUnavailable, match="its bytes are gone"):
        list(driver.read(Image("one", "one", size_bytes=6)))
