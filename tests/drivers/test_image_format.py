"""What is read from an image's first bytes, on images that qemu-img made."""

import struct
import subprocess
from pathlib import Path

import pytest

from hullwright.drivers.image_format import HEAD_BYTES, ImageFacts, inspect, recognise
from hullwright.objects.errors import ImageUnacceptable

MIB = 1024**2


def make(path: Path, kind: str, *more: str, size: str = "10M") -> bytes:
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, *more, str(path), size], check=True, timeout=60)
    return path.read_bytes()


def look(declared: str | None, data: bytes) -> ImageFacts:
    return inspect("image", declared, data[:HEAD_BYTES], len(data))


def refusal(declared: str | None, data: bytes) -> str:
    with pytest.raises(ImageUnacceptable) as caught:
        look(declared, data)
    return caught.value.text


@pytest.mark.parametrize(
    "option",
    [
        "compat=0.10",
        "compat=1.1",
        "compat=1.1,extended_l2=on",
        "compression_type=zstd",
        "cluster_size=512",
        "cluster_size=2M",
    ],
)
def test_a_qcow2_is_accepted_with_its_virtual_size(tmp_path: Path, option: str) -> None:
    assert look("qcow2", make(tmp_path / "i", "qcow2", "-o", option)) == ImageFacts("qcow2", 10 * MIB)


def test_a_raw_image_is_as_large_as_its_sectors() -> None:
    assert look("raw", b"x" * 1000) == ImageFacts("raw", 1024)


def test_kernels_and_ramdisks_are_raw_bytes() -> None:
    assert look("aki", b"MZ" + b"k" * 5000).disk_format == "raw"
    assert look("ari", b"\x1f\x8b" + b"r" * 5000).disk_format == "raw"


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_a_backing_file_is_refused(tmp_path: Path, compat: str) -> None:
    make(tmp_path / "below", "raw")
    data = make(tmp_path / "i", "qcow2", "-o", f"compat={compat}", "-b", str(tmp_path / "below"), "-F", "raw")
    assert "backing file" in refusal("qcow2", data)


def test_an_external_data_file_is_refused(tmp_path: Path) -> None:
    data = make(tmp_path / "i", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on")
    assert "data file" in refusal("qcow2", data)


def test_a_data_file_named_in_an_extension_alone_is_refused(tmp_path: Path) -> None:
    data = bytearray(make(tmp_path / "i", "qcow2", "-o", f"data_file={tmp_path}/data"))
    features = struct.unpack_from(">Q", data, 72)[0]
    struct.pack_into(">Q", data, 72, features & ~4)
    assert "data file" in refusal("qcow2", bytes(data))


def test_an_encrypted_qcow2_is_refused(tmp_path: Path) -> None:
    data = bytearray(make(tmp_path / "i", "qcow2"))
    struct.pack_into(">I", data, 32, 2)
    assert "encrypted" in refusal("qcow2", bytes(data))


def test_snapshots_in_a_qcow2_are_accepted_when_their_table_is_in_the_file(tmp_path: Path) -> None:
    make(tmp_path / "i", "qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(tmp_path / "i")], check=True, timeout=60)
    data = bytearray((tmp_path / "i").read_bytes())
    assert look("qcow2", bytes(data)).virtual_size_bytes == 10 * MIB
    struct.pack_into(">I", data, 60, 65_537)
    assert "65537 snapshots" in refusal("qcow2", bytes(data))
    struct.pack_into(">IQ", data, 60, 1, 1 << 40)
    assert "snapshot table" in refusal("qcow2", bytes(data))


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "parallels"])
def test_other_formats_declared_raw_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    data = make(tmp_path / "i", kind)
    assert recognise(data) in refusal("raw", data)
    assert recognise(data) != "raw"


def test_raw_bytes_declared_qcow2_are_refused() -> None:
    assert "its bytes are raw" in refusal("qcow2", b"x" * 100_000)


@pytest.mark.parametrize("declared", ["vmdk", "iso", None, ""])
def test_formats_that_we_do_not_support_are_refused(declared: str | None) -> None:
    assert "not supported" in refusal(declared, b"x" * 1000)


def test_an_empty_image_is_refused() -> None:
    assert "empty" in refusal("raw", b"")


def test_a_qcow2_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    data = make(tmp_path / "i", "qcow2")
    assert "cut off" in refusal("qcow2", data[:70_000])
    assert "cut off" in refusal("qcow2", data[:40])


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (4, ">I", 1),  # version
        (20, ">I", 40),  # cluster bits
        (24, ">Q", 0),  # virtual size
        (24, ">Q", 1 << 62),
        (36, ">I", 0),  # L1 entries
        (40, ">Q", 12345),  # L1 offset
        (48, ">Q", 1 << 50),  # refcount table offset
        (72, ">Q", 1 << 60),  # unknown incompatible feature
        (72, ">Q", 2),  # marked corrupt
        (96, ">I", 9),  # refcount order
        (100, ">I", 100_000),  # header length
    ],
)
def test_a_broken_qcow2_header_is_refused(tmp_path: Path, offset: int, layout: str, value: int) -> None:
    data = bytearray(make(tmp_path / "i", "qcow2"))
    struct.pack_into(layout, data, offset, value)
    assert "Image image is unacceptable" in refusal("qcow2", bytes(data))
