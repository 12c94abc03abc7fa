"""Base images on a host: each whole and verified, once, whoever asks for it and however often a transfer breaks off.

Not for: moving the bytes; that is image_transfer.py.

The cache lies in the host's pool, as volumes, because libvirtd is the one thing that all conductors share with the host:

    base-<image>            the bytes; may be incomplete as long as there is no
    base-<image>.ok         written last: size, format, virtual size
    base-<image>.part-<n>   a transfer's record: who does it, how far it is

Making a volume is an atomic test-and-set of libvirtd, so whoever makes `.part-<n+1>` has the transfer from then on and goes on
where record n stood; a holder that finds a younger record than its own lets go. Records are taken over when their holder let go, or
when neither record nor bytes have moved for `stale_seconds` by the waiter's own clock; no clocks are compared. Should a holder only
have been slow, both write the same bytes to the same place for a moment, and the checksum is taken after that.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.libvirt_binding import is_gone, load_libvirt
from hullwright.objects.hosts import IMAGES_TOLD_MAX
from hullwright.objects.images import CachedImage, Image

RECORD_BYTES = 1024
_NAME = re.compile(r"base-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.part-\d+)?$")
_PROCESS = uuid.uuid4().hex
_active: set[str] = set()  # owners of transfers that this process is making right now


def whole_images(pool: Any) -> list[str]:
    """The ids of the images that count as whole in the host's pool."""
    names = (name.removesuffix(".ok") for name in pool.listVolumes() if name.endswith(".ok"))
    return sorted(found[1] for name in names if (found := _NAME.match(name)))


def cached_images(pool: Any) -> tuple[str, ...]:
    """The same, as many as are told to schedulers."""
    return tuple(whole_images(pool)[:IMAGES_TOLD_MAX])


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a base image on the host, as kept in `.part-<n>` and `.ok`."""

    size_bytes: int
    disk_format: str = "raw"
    virtual_size_bytes: int = 0
    checked: bool = False  # format and virtual size were read from the image itself
    done_bytes: int = 0  # certainly written
    owner: str = ""
    held: bool = False  # the owner is at it, or died
    beat: int = 0  # goes up while the owner lives and done_bytes does not
    checksum: str = ""  # of a whole image: sha256:... or md5:... of its bytes; empty: not known
    written: str = ""  # of a whole image: when its file was last written to, as libvirt tells it

    def encode(self) -> bytes:
        """As stored; the length is fixed, so that a volume is overwritten in place."""
        return json.dumps(asdict(self)).encode().ljust(RECORD_BYTES)

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """From a volume's bytes; None when it was made and never written."""
        try:
            return cls(**json.loads(data.rstrip(b"\x00")))
        except (ValueError, TypeError):
            return None


@dataclass(slots=True)
class Watch:
    """A waiter's memory: since when nothing has moved."""

    seen: object = None
    since: float = 0.0
    done_bytes: int = 0

    def still_for(self, seen: object) -> float:
        """Seconds that `seen` has been the same."""
        if seen != self.seen:
            self.seen, self.since = seen, time.monotonic()
        return time.monotonic() - self.since


class Entry:
    """One image in the cache of one host. Use within one connection; holds no lock unless `take` said yes."""

    def __init__(self, connection: Any, pool: Any, image: Image) -> None:
        self.connection = connection
        self.pool = pool
        self.image = image
        self.name = f"base-{image.id}"
        self.generation = 0
        self.record = Record(size_bytes=image.size_bytes)

    # --- looking ----------------------------------------------------------------------------------------------------

    def whole(self) -> CachedImage | None:
        """The image, when it is whole."""
        marker = storage.find_volume(self.pool, f"{self.name}.ok")
        base = storage.find_volume(self.pool, self.name)
        if marker is None or base is None:
            return None
        record = self._read(marker)
        if record is None or storage.physical_bytes(base) != record.size_bytes:
            return None
        return CachedImage(
            image_id=self.image.id,
            path=base.path(),
            disk_format=record.disk_format,
            size_bytes=record.size_bytes,
            virtual_size_bytes=record.virtual_size_bytes,
        )

    def is_marked_whole(self) -> bool:
        """Whether somebody declared it whole, whatever its size."""
        return storage.find_volume(self.pool, f"{self.name}.ok") is not None

    def base(self) -> Any | None:
        """The volume that holds the bytes."""
        return storage.find_volume(self.pool, self.name)

    def _generations(self) -> list[int]:
        prefix = f"{self.name}.part-"
        numbers = (name.removeprefix(prefix) for name in self.pool.listVolumes() if name.startswith(prefix))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def _read_record(self, generation: int) -> Record | None:
        volume = storage.find_volume(self.pool, self._part(generation))
        return None if volume is None else self._read(volume)

    def _read(self, volume: Any) -> Record | None:
        """A record; None for one that its owner is just making or removing."""
        libvirt = load_libvirt()
        try:
            return Record.decode(storage.read(self.connection, volume, 0, RECORD_BYTES))
        except libvirt.libvirtError as error:
            if is_gone(error) or error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
                return None
            raise

    def _part(self, generation: int) -> str:
        return f"{self.name}.part-{generation}"

    # --- taking and letting go ----------------------------------------------------------------------------------------

    def take(self, watch: Watch, stale_seconds: float) -> bool:
        """Try to become the one who transfers; False while somebody else is at it."""
        older = self._generations()
        if older:
            newest = self._read_record(older[-1])
            base = self.base()
            allocated = storage.allocated_bytes(base) if base is not None else 0
            watch.done_bytes = min(allocated, self.image.size_bytes)
            still = watch.still_for((older[-1], newest, allocated))
            if not _abandoned(newest) and still < stale_seconds:
                return False
        generation = older[-1] + 1 if older else 1
        volume = storage.make_volume(self.pool, self._part(generation), RECORD_BYTES)
        if volume is None:
            return False
        self.generation = generation
        self.record = replace(self._last_known(older), owner=f"{_PROCESS}-{uuid.uuid4().hex}", held=True)
        _active.add(self.record.owner)
        # Older records go only when ours is written: whoever comes after a crash here must find how far things are.
        storage.write(self.connection, volume, self.record.encode())
        for number in older:
            storage.delete_volume(self.pool, self._part(number))
        return True

    def _last_known(self, generations: list[int]) -> Record:
        """The youngest legible record, as long as there are bytes that it can speak of."""
        fresh = Record(size_bytes=self.image.size_bytes)
        base = self.base()
        if base is None or storage.physical_bytes(base) != self.image.size_bytes:
            return fresh
        for number in reversed(generations):
            record = self._read_record(number)
            if record is not None:
                return record if record.size_bytes == self.image.size_bytes else fresh
        return fresh

    def still_ours(self) -> bool:
        """Tell whether nobody has taken the transfer over."""
        if storage.find_volume(self.pool, self._part(self.generation + 1)) is not None:
            return False
        present = self._read_record(self.generation)
        return present is not None and present.owner == self.record.owner

    def save(self, **changes: Any) -> None:
        """Write our record."""
        self.record = replace(self.record, **changes)
        volume = storage.find_volume(self.pool, self._part(self.generation))
        if volume is not None:
            storage.write(self.connection, volume, self.record.encode())

    def let_go(self) -> None:
        """Leave the transfer to the next, who goes on where the record stands; a host that is gone cannot be told."""
        try:
            if self.still_ours():
                self.save(held=False)
        except load_libvirt().libvirtError:
            pass
        finally:
            self.forget()

    def forget(self) -> None:
        """We are not at it any more."""
        _active.discard(self.record.owner)

    def step_back(self) -> None:
        """Somebody else made the image whole before we began."""
        self._delete_records()

    def complete(self, checksum: str) -> None:
        """Declare the image whole."""
        base = self.base()
        written = storage.written_at(base) if base is not None else ""
        self.mark_whole(replace(self.record, owner="", held=False, checksum=checksum, written=written))

    def mark_whole(self, record: Record) -> None:
        """Have the mark that says so, and no records of transfers."""
        name = f"{self.name}.ok"
        marker = storage.make_volume(self.pool, name, RECORD_BYTES) or storage.find_volume(self.pool, name)
        storage.write(self.connection, marker, record.encode())
        self._delete_records()

    def mark(self) -> Record | None:
        """What was written down when the image was declared whole; None when it was not."""
        marker = storage.find_volume(self.pool, f"{self.name}.ok")
        return None if marker is None else self._read(marker)

    def unmark(self) -> None:
        """Have whoever wants the image wait until we are done with it."""
        storage.delete_volume(self.pool, f"{self.name}.ok")

    def discard(self) -> None:
        """Leave nothing of an image that is not whole; the bytes go first, and the records speak of nothing then."""
        if not self.still_ours():
            self.forget()  # whoever has it now may have made it whole, and guests may stand on it
            return
        storage.delete_volume(self.pool, f"{self.name}.ok")
        storage.delete_volume(self.pool, self.name)
        self._delete_records()

    def _delete_records(self) -> None:
        for number in self._generations():
            storage.delete_volume(self.pool, self._part(number))
        self.forget()


def half_images(connection: Any, pool: Any) -> dict[str, str]:
    """Image id -> how far it is, for those in the pool that nobody has declared whole."""
    names = set(pool.listVolumes())
    found = {match[1] for name in names if (match := _NAME.match(name)) and f"base-{match[1]}.ok" not in names}
    marks = {}
    for image_id in sorted(found):
        entry = Entry(connection, pool, Image(id=image_id, name=""))
        generations = entry._generations()
        record = entry._read_record(generations[-1]) if generations else None
        base = entry.base()
        told = (record.done_bytes, record.beat, record.held) if record is not None else None
        allocated = storage.allocated_bytes(base) if base is not None else 0
        marks[image_id] = f"{max(generations, default=0)} {told} {allocated}"
    return marks


def _abandoned(record: Record | None) -> bool:
    """Tell whether a record's owner surely is not at it: it let go, or is a transfer of this process that ended badly."""
    if record is None:
        return False
    return not record.held or (record.owner.startswith(_PROCESS) and record.owner not in _active)
