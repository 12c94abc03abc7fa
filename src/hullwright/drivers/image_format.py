"""What the first bytes of a disk image say: its format, how large its disk is, and whether it can be trusted with a host.

Pure over bytes; opens no file. Anybody may upload an image, and a hypervisor opens it with its own rights: an image that names
another file (backing file, data file) would show that file of the host to the guest. So the declared format must be the true
one, and such images are refused before their first byte reaches a host.

Not for: converting images, checking a qcow2's tables (its header is checked; QEMU keeps the rest inside the file).
The qcow2 header is that of QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hullwright.objects.errors import ImageUnacceptable

HEAD_BYTES = 64 * 1024  # enough for every check here; a shorter image is given whole

RAW_FORMATS = ("raw", "aki", "ari", "ami")  # bytes used as they are; aki and ari: kernel and ramdisk
FORMATS = ("qcow2", *RAW_FORMATS)
SECTOR_BYTES = 512

QCOW2_MAGIC = b"QFI\xfb"
_HEADER_V2 = struct.Struct(">4sIQIIQIIQQIIQ")  # magic .. snapshots_offset
_HEADER_V2_BYTES = 72
_FEATURES_V3 = struct.Struct(">QQQII")  # incompatible, compatible, autoclear, refcount order, header length
_EXTENSION = struct.Struct(">II")
_INCOMPATIBLE_DIRTY = 1 << 0
_INCOMPATIBLE_CORRUPT = 1 << 1
_INCOMPATIBLE_DATA_FILE = 1 << 2
_INCOMPATIBLE_COMPRESSION = 1 << 3
_INCOMPATIBLE_EXTENDED_L2 = 1 << 4
_INCOMPATIBLE_USABLE = _INCOMPATIBLE_DIRTY | _INCOMPATIBLE_COMPRESSION | _INCOMPATIBLE_EXTENDED_L2
_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE_NAME = 0x44415441
_MAX_VIRTUAL_BYTES = 1 << 56
_MAX_SNAPSHOTS = 65_536  # QEMU's
_SNAPSHOT_BYTES = 40  # of an entry at least

# What other formats begin with (or have at an offset): to be refused by name when they come under a false one.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, QCOW2_MAGIC, "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"QED\x00", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"OOOM", "user-mode Linux copy-on-write"),
)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's head tells."""

    disk_format: str  # raw or qcow2
    virtual_size_bytes: int  # of the disk that a guest sees


def recognise(head: bytes) -> str:
    """Name the format that the bytes are in; raw when none is known."""
    for offset, signature, name in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    return "raw"


def inspect(image_id: str, declared_format: str | None, head: bytes, size_bytes: int) -> ImageFacts:
    """Check an image and tell its true format and virtual size.

    `head`: its first HEAD_BYTES, or all when it is shorter. `size_bytes`: of the whole file.

    Raises: ImageUnacceptable.
    """

    def refuse(reason: str) -> ImageUnacceptable:
        return ImageUnacceptable(image=image_id, reason=reason)

    if declared_format not in FORMATS:
        raise refuse(f"format {declared_format or 'none'} is not supported; use one of {', '.join(FORMATS)}")
    if size_bytes <= 0:
        raise refuse("it is empty")
    if len(head) < min(HEAD_BYTES, size_bytes):
        raise refuse("its beginning is missing")
    found = recognise(head)
    if declared_format == "qcow2":
        if found != "qcow2":
            raise refuse(f"it is declared qcow2 and its bytes are {found}")
        try:
            return ImageFacts("qcow2", _qcow2_virtual_size(head, size_bytes))
        except ValueError as error:
            raise refuse(str(error)) from None
    if found != "raw":
        raise refuse(f"it is declared {declared_format} and its bytes are {found}")
    # A guest's disk is made of whole sectors; QEMU shows the last one filled up.
    return ImageFacts("raw", -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES)


def _qcow2_virtual_size(head: bytes, size_bytes: int) -> int:
    """The virtual size in bytes.

    Raises: ValueError when the header is broken or names another file.
    """
    if len(head) < _HEADER_V2_BYTES:
        raise ValueError("its qcow2 header is cut off")
    (
        _magic,
        version,
        backing_offset,
        backing_length,
        cluster_bits,
        virtual_bytes,
        encryption,
        l1_entries,
        l1_offset,
        refcount_offset,
        refcount_clusters,
        snapshots,
        snapshots_offset,
    ) = _HEADER_V2.unpack_from(head)
    if version not in (2, 3):
        raise ValueError(f"qcow2 version {version} is not supported")
    if backing_offset or backing_length:
        raise ValueError("it has a backing file")
    if encryption:
        raise ValueError("it is encrypted")
    if not 9 <= cluster_bits <= 21:
        raise ValueError(f"its qcow2 header is broken: 2^{cluster_bits} bytes per cluster")
    cluster_bytes = 1 << cluster_bits
    if not 0 < virtual_bytes <= _MAX_VIRTUAL_BYTES:
        raise ValueError(f"its qcow2 header is broken: a disk of {virtual_bytes} bytes")
    _check_table("L1", l1_offset, l1_entries * 8, cluster_bytes, size_bytes)
    _check_table("refcount", refcount_offset, refcount_clusters * cluster_bytes, cluster_bytes, size_bytes)
    if snapshots > _MAX_SNAPSHOTS:
        raise ValueError(f"its qcow2 header is broken: {snapshots} snapshots")
    if snapshots:
        _check_table("snapshot", snapshots_offset, snapshots * _SNAPSHOT_BYTES, cluster_bytes, size_bytes)
    extensions_at, l2_entry_bytes = _HEADER_V2_BYTES, 8
    if version == 3:
        if len(head) < _HEADER_V2_BYTES + _FEATURES_V3.size:
            raise ValueError("its qcow2 header is cut off")
        incompatible, _compatible, _autoclear, refcount_order, extensions_at = _FEATURES_V3.unpack_from(head, _HEADER_V2_BYTES)
        if incompatible & _INCOMPATIBLE_DATA_FILE:
            raise ValueError("it has an external data file")
        if incompatible & _INCOMPATIBLE_CORRUPT:
            raise ValueError("it is marked corrupt")
        if incompatible & ~_INCOMPATIBLE_USABLE:
            raise ValueError(f"it needs qcow2 features that are not known: {incompatible & ~_INCOMPATIBLE_USABLE:#x}")
        if refcount_order > 6:
            raise ValueError(f"its qcow2 header is broken: refcounts of 2^{refcount_order} bits")
        if incompatible & _INCOMPATIBLE_EXTENDED_L2:
            l2_entry_bytes = 16
        if extensions_at < _HEADER_V2_BYTES + _FEATURES_V3.size or extensions_at % 8 or extensions_at > cluster_bytes:
            raise ValueError(f"its qcow2 header is broken: {extensions_at} bytes long")
    bytes_per_l2 = cluster_bytes // l2_entry_bytes * cluster_bytes
    if l1_entries < -(-virtual_bytes // bytes_per_l2):
        raise ValueError("its qcow2 header is broken: the L1 table does not cover the disk")
    _check_extensions(head, extensions_at, min(cluster_bytes, size_bytes))
    return int(virtual_bytes)


def _check_table(name: str, offset: int, length: int, cluster_bytes: int, size_bytes: int) -> None:
    """The table must begin on a cluster after the header and lie within the file.

    Raises: ValueError.
    """
    if offset < cluster_bytes or offset % cluster_bytes or length <= 0 or offset + length > size_bytes:
        raise ValueError(f"its qcow2 header is broken, or the file is cut off: {name} table at {offset}, {length} bytes")


def _check_extensions(head: bytes, offset: int, end: int) -> None:
    """Walk the header extensions, which lie in the first cluster; none may name another file.

    Raises: ValueError.
    """
    while offset + _EXTENSION.size <= end:
        if offset + _EXTENSION.size > len(head):
            raise ValueError(f"its qcow2 header extensions go beyond {HEAD_BYTES} bytes")
        kind, length = _EXTENSION.unpack_from(head, offset)
        if kind == _EXTENSION_END:
            return
        if kind == _EXTENSION_BACKING_FORMAT:
            raise ValueError("it has the format of a backing file in its header")
        if kind == _EXTENSION_DATA_FILE_NAME:
            raise ValueError("it names an external data file")
        offset += _EXTENSION.size + (length + 7) // 8 * 8
        if offset > end:
            raise ValueError("its qcow2 header extensions are broken")
