"""Disks as a guest sees them: the buses that they may be on, and their names there.

Not for: where a disk's bytes are; that is the volume's record or the virt driver's to know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product
from string import ascii_lowercase

DEFAULT_BUS = "virtio"
# How libvirt wants the names of a bus to begin; several buses share one series of names.
PREFIXES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}
CDROM_BUSES = ("ide", "sata", "scsi", "usb")  # a virtio disk has no medium to eject
# The place on sd and hd buses follows from the name: far ones would need controllers that a machine has no room for.
_GIVEN = re.compile(r"(?:/dev/)?((?:vd|xvd)[a-z]{1,2}|sd[a-z]|hd[a-d])")


def names(bus: str) -> Iterator[str]:
    """The names on a bus in order, 702 of them: vda to vdz, vdaa to vdzz.

    Raises: KeyError for a bus that is not in `PREFIXES`.
    """
    prefix = PREFIXES[bus]
    for first, last in product(["", *ascii_lowercase], ascii_lowercase):
        yield f"{prefix}{first}{last}"


def first_free(bus: str, taken: Collection[str], *, skip: int = 0) -> str | None:
    """The first name on a bus, after `skip` names, that is not `taken`; None when there is none."""
    return next((name for number, name in enumerate(names(bus)) if number >= skip and name not in taken), None)


def given_name(text: str) -> str | None:
    """The bare name (vdb) in what a user wrote: /dev/vdb or vdb; None when it is no name of a disk."""
    found = _GIVEN.fullmatch(text)
    return found.group(1) if found else None


def bus_of(disk_bus: str | None, properties: Mapping[str, str]) -> str:
    """The bus of a disk: its own (of a block device), else that of the image's properties, else virtio."""
    return disk_bus or properties.get("hw_disk_bus") or DEFAULT_BUS


def root_device(root_buses: Iterable[str | None], properties: Mapping[str, str]) -> str:
    """Name of the root disk, /dev/vda or as its bus has it. `root_buses`: of the volume that is booted from, if there is one."""
    prefix = PREFIXES.get(bus_of(next(iter(root_buses), None), properties), PREFIXES[DEFAULT_BUS])
    return f"/dev/{prefix}a"
