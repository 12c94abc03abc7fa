"""Columns: what the scheduler knows of the hosts, one array per attribute, one position per host.

A filter or a weigher is then a few operations on whole arrays, whatever the number of hosts. Columns are changed host by host
(`put`, `drop`) or column by column (`set_...`); the cost follows what changed.
Not for: reading the database (`snapshot`), nor for locking; whoever owns the columns sees to that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hullwright.objects.hosts import HostFacts
from hullwright.scheduler.aggregates import AggregateColumns
from hullwright.scheduler.metrics import MetricColumns

if TYPE_CHECKING:
    from hullwright.scheduler.image_tally import ImageTally

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NO_FACTS = HostFacts("", "", 0, 0, 0, 0, 0, cpu_arch="", virt_types=(), disk_formats=())


@dataclass(frozen=True, slots=True)
class HostRow:
    """What is known of one host, apart from its resources."""

    id: int
    name: str
    enabled: bool = True
    forced_down: bool = False
    availability_zone: str = "nova"
    last_seen_at: float = 0.0
    silent_seconds: float = 0.0
    failed_builds: int = 0
    probed_at: float | None = None
    quarantine_reason: str | None = None
    facts: HostFacts | None = None
    uuid: str = ""


def _resized(array: NDArray[Any], size: int) -> NDArray[Any]:
    longer = np.zeros(size, dtype=array.dtype)
    longer[: len(array)] = array
    return longer


class Labels:
    """One word per host, held as a number, so that a comparison is one operation on the array."""

    def __init__(self) -> None:
        """Start without hosts."""
        self.codes: Integers = np.zeros(0, dtype=np.int64)
        self.words: dict[str, int] = {"": 0}
        self._numbers: dict[Callable[[str], int], Integers] = {}  # by word, of those that were asked for

    def equal(self, word: str) -> Mask:
        """Which hosts have this word."""
        equal: Mask = self.codes == self.words.get(word, -1)
        return equal

    def matching(self, is_wanted: Callable[[str], bool]) -> Mask:
        """Which hosts have a word that is wanted; each word is asked once."""
        wanted = np.array([is_wanted(word) for word in self.words], dtype=bool)
        matching: Mask = wanted[self.codes]
        return matching

    def numbers(self, number_of: Callable[[str], int]) -> Integers:
        """What a function of the module's own makes of each host's word; each word is asked once and for all."""
        known = self._numbers.get(number_of, np.zeros(0, dtype=np.int64))
        if len(known) < len(self.words):
            fresh = [number_of(word) for word in islice(self.words, len(known), None)]
            known = self._numbers[number_of] = np.concatenate((known, np.array(fresh, dtype=np.int64)))
        numbers: Integers = known[self.codes]
        return numbers

    def put(self, position: int, word: str) -> None:
        """Give a host its word."""
        self.codes[position] = self.words.setdefault(word, len(self.words))

    def resize(self, size: int) -> None:
        """Make room for hosts at the end."""
        self.codes = _resized(self.codes, size)

    def keep(self, mask: Mask) -> None:
        """Drop the other hosts."""
        self.codes = self.codes[mask]


class Sets:
    """A set of words per host, held as one array of truths per word."""

    def __init__(self) -> None:
        """Start without hosts."""
        self.size = 0
        self.holders: dict[str, Mask] = {}

    def having(self, word: str) -> Mask:
        """Which hosts have this word in their set."""
        holders = self.holders.get(word)
        return np.zeros(self.size, dtype=bool) if holders is None else holders

    def put(self, position: int, words: Collection[str]) -> None:
        """Give a host its set."""
        for word in words:
            if word not in self.holders:
                self.holders[word] = np.zeros(self.size, dtype=bool)
        for word, holders in self.holders.items():
            holders[position] = word in words

    def resize(self, size: int) -> None:
        """Make room for hosts at the end."""
        self.size = size
        self.holders = {word: _resized(holders, size) for word, holders in self.holders.items()}

    def keep(self, mask: Mask) -> None:
        """Drop the other hosts."""
        self.size = int(mask.sum())
        self.holders = {word: holders[mask] for word, holders in self.holders.items()}


_AMOUNTS = ("usable", "ratio", "capacity", "used", "holders", "building")


class Resource:
    """One resource class on all hosts; zeros where a host has none of it."""

    def __init__(self, size: int) -> None:
        """Start with nothing on `size` hosts."""
        self.usable: Integers = np.zeros(size, dtype=np.int64)  # total - reserved: the most that one instance may have
        self.ratio: Floats = np.zeros(size)  # how often it may be given
        self.capacity: Floats = np.zeros(size)  # usable x ratio: the most that all instances together may have
        self.used: Integers = np.zeros(size, dtype=np.int64)  # claimed, or chosen here and about to be claimed
        self.holders: Integers = np.zeros(size, dtype=np.int64)  # instances that hold of it
        self.building: Integers = np.zeros(size, dtype=np.int64)  # those of them that are being built

    @property
    def free(self) -> Floats:
        """What is left on each host; negative where the host shrank."""
        return self.capacity - self.used

    def fits(self, amount: int) -> Mask:
        """Which hosts have room for `amount` more."""
        fits: Mask = (self.used + amount <= self.capacity) & (amount <= self.usable)
        return fits

    def resize(self, size: int) -> None:
        """Make room for hosts at the end."""
        for name in _AMOUNTS:
            setattr(self, name, _resized(getattr(self, name), size))

    def keep(self, mask: Mask) -> None:
        """Drop the other hosts."""
        for name in _AMOUNTS:
            setattr(self, name, getattr(self, name)[mask])


_PLAIN = (
    "ids",
    "enabled",
    "forced_down",
    "last_seen_at",
    "silent_seconds",
    "failed_builds",
    "probed_at",
    "hypervisor_version",
    "instance_counts",
    "io_ops",
)


class Columns:
    """All hosts. Every array has one entry per host, at the same position in all of them."""

    def __init__(self, rows: Iterable[HostRow] = (), metrics: Iterable[str] = ()) -> None:
        """Start with these hosts; `metrics`: names of those to keep."""
        self.names: list[str] = []
        self.ids: Integers = np.zeros(0, dtype=np.int64)
        self.enabled: Mask = np.zeros(0, dtype=bool)
        self.forced_down: Mask = np.zeros(0, dtype=bool)
        self.last_seen_at: Floats = np.zeros(0)
        self.silent_seconds: Floats = np.zeros(0)
        self.failed_builds: Integers = np.zeros(0, dtype=np.int64)
        self.probed_at: Floats = np.zeros(0)  # when a quarantined host was last probed; 0: not in quarantine
        self.quarantine_reasons: dict[int, str] = {}  # by host id
        self.hypervisor_version: Integers = np.zeros(0, dtype=np.int64)
        self.instance_counts: Integers = np.zeros(
            0, dtype=np.int64
        )  # this and the next with what was chosen here and is about to be claimed
        self.io_ops: Integers = np.zeros(0, dtype=np.int64)  # builds under way
        self.availability_zone = Labels()
        self.cpu_arch = Labels()
        self.hypervisor_type = Labels()  # in small letters
        self.hypervisor_name = Labels()  # as the host tells it
        self.cpu_model = Labels()
        self.cpu_features = Labels()  # all of them, with spaces in between
        self.guest_cpu_features = Labels()  # the same, of the CPU that guests see
        self.machine_types = Labels()  # the same
        self.host_ip = Labels()
        self.uuid = Labels()
        self.virt_types = Sets()
        self.vm_modes = Sets()
        self.disk_formats = Sets()
        self.resources: dict[str, Resource] = {}
        self.aggregates = AggregateColumns()
        self.metrics = MetricColumns(metrics)
        self.membership_news: set[int] = set()  # ids of hosts whose aggregates are to be read anew: `surroundings`
        self.layout = 0  # grows whenever hosts come, or others move up to their positions
        self.image_tally: ImageTally | None = None  # when something needs it: `surroundings`
        self.image_holders: dict[str, set[int]] = {}  # image id -> ids of the hosts where it lies
        self._images: dict[int, tuple[str, ...]] = {}  # the same, by host id
        self._sorted: tuple[int, list[str]] = (0, [])  # names in order, and the layout that they were sorted for
        self._position_by_id: dict[int, int] = {}
        self._position_by_name: dict[str, int] = {}
        self.put(list(rows))

    def __len__(self) -> int:
        """How many hosts there are."""
        return len(self.names)

    def none(self) -> Mask:
        """A mask that no host passes, to be filled in."""
        return np.zeros(len(self), dtype=bool)

    def all(self) -> Mask:
        """A mask that every host passes, to be taken from."""
        return np.ones(len(self), dtype=bool)

    def position(self, name: str) -> int | None:
        """Where a host is in the arrays."""
        return self._position_by_name.get(name)

    def position_of_id(self, host_id: int) -> int | None:
        """Where a host is in the arrays."""
        return self._position_by_id.get(host_id)

    def positions(self, host_ids: Sequence[int]) -> Integers:
        """Where these hosts are in the arrays; all of them must be there."""
        return np.fromiter((self._position_by_id[host_id] for host_id in host_ids), dtype=np.int64, count=len(host_ids))

    def named(self, names: Iterable[str]) -> Mask:
        """Which hosts have one of these names; unknown names are nobody."""
        mask = self.none()
        mask[[at for name in names if (at := self.position(name)) is not None]] = True
        return mask

    def with_ids(self, host_ids: Iterable[int]) -> Mask:
        """Which hosts have one of these ids; unknown ids are nobody."""
        mask = self.none()
        mask[[at for host_id in host_ids if (at := self.position_of_id(host_id)) is not None]] = True
        return mask

    def names_after(self, name: str, limit: int) -> list[str]:
        """At most `limit` names behind this one, in order; they are sorted once for each layout."""
        if self._sorted[0] != self.layout:
            self._sorted = self.layout, sorted(self.names)
        names = self._sorted[1]
        start = bisect_right(names, name)
        return names[start : start + limit]

    def amounts(self, by_id: Mapping[int, float]) -> Floats:
        """An amount per host, from those of some hosts by id."""
        amounts = np.zeros(len(self))
        for host_id, amount in by_id.items():
            if (position := self.position_of_id(host_id)) is not None:
                amounts[position] = amount
        return amounts

    def resource(self, resource_class: str) -> Resource:
        """A resource class; one that no host has is all zeros."""
        return self.resources.get(resource_class) or Resource(len(self))

    # --- Changes ------------------------------------------------------------------------------------------------------

    def put(self, rows: Sequence[HostRow]) -> None:
        """Add hosts, and replace what is known of those that are there."""
        new = [row for row in rows if row.id not in self._position_by_id]
        if new:
            size = len(self) + len(new)
            self.layout += 1
            for name in _PLAIN:
                setattr(self, name, _resized(getattr(self, name), size))
            for part in self._parts():
                part.resize(size)
            for position, row in enumerate(new, len(self)):
                self._position_by_id[row.id] = position
                self.names.append(row.name)
        for row in rows:
            self._put(self._position_by_id[row.id], row)
        self.membership_news.update(row.id for row in rows)

    def drop(self, host_ids: Collection[int]) -> None:
        """Forget hosts; those that follow move up."""
        mask = ~np.isin(self.ids, list(host_ids))
        self.layout += 1
        self.membership_news.difference_update(host_ids)
        for host_id in host_ids:
            self._put_images(host_id, ())
        self.quarantine_reasons = {key: reason for key, reason in self.quarantine_reasons.items() if key not in host_ids}
        for name in _PLAIN:
            setattr(self, name, getattr(self, name)[mask])
        for part in self._parts():
            part.keep(mask)
        self.names = [name for name, kept in zip(self.names, mask, strict=True) if kept]
        self._position_by_id = {int(host_id): position for position, host_id in enumerate(self.ids)}
        self._position_by_name = {name: position for position, name in enumerate(self.names)}

    def set_resource(
        self, resource_class: str, positions: Any, total: Any, reserved: Any, ratio: Any, used: Any, holders: Any = 0, building: Any = 0
    ) -> None:
        """Set one resource class of the hosts at `positions`; the other hosts keep theirs."""
        resource = self.resources.setdefault(resource_class, Resource(len(self)))
        usable = np.subtract(total, reserved)
        resource.usable[positions] = usable
        resource.ratio[positions] = ratio
        resource.capacity[positions] = usable * np.asarray(ratio)
        resource.used[positions] = used
        resource.holders[positions] = holders
        resource.building[positions] = building

    def count_instances(self, positions: Any) -> None:
        """Count the instances of the hosts at `positions`, and those being built, by the resource that most of them hold."""
        if self.resources:
            self.instance_counts[positions] = np.maximum.reduce([each.holders[positions] for each in self.resources.values()])
            self.io_ops[positions] = np.maximum.reduce([each.building[positions] for each in self.resources.values()])

    def _parts(self) -> list[Labels | Sets | Resource | AggregateColumns | MetricColumns]:
        words: list[Labels | Sets | Resource | AggregateColumns | MetricColumns] = [
            self.aggregates,
            self.metrics,
            self.availability_zone,
            self.cpu_arch,
            self.hypervisor_type,
            self.hypervisor_name,
            self.cpu_model,
            self.cpu_features,
            self.guest_cpu_features,
            self.machine_types,
            self.host_ip,
            self.uuid,
            self.virt_types,
            self.vm_modes,
            self.disk_formats,
        ]
        return [*words, *self.resources.values()]

    def _put_images(self, host_id: int, images: tuple[str, ...]) -> None:
        before = self._images.pop(host_id, ())
        if images:
            self._images[host_id] = images
        for image in set(before).difference(images):
            self.image_holders[image].discard(host_id)
            if not self.image_holders[image]:
                del self.image_holders[image]
        for image in set(images).difference(before):
            self.image_holders.setdefault(image, set()).add(host_id)

    def _put(self, position: int, row: HostRow) -> None:
        facts = row.facts or NO_FACTS
        if self._position_by_name.get(self.names[position]) == position:
            del self._position_by_name[self.names[position]]
        self._position_by_name[row.name] = position
        self.names[position] = row.name
        self.ids[position] = row.id
        self.enabled[position] = row.enabled
        self.forced_down[position] = row.forced_down
        self.last_seen_at[position] = row.last_seen_at
        self.silent_seconds[position] = row.silent_seconds
        self.failed_builds[position] = row.failed_builds
        self.probed_at[position] = row.probed_at or 0.0
        self.quarantine_reasons.pop(row.id, None)
        if row.quarantine_reason is not None:
            self.quarantine_reasons[row.id] = row.quarantine_reason
        self.hypervisor_version[position] = facts.hypervisor_version
        self.availability_zone.put(position, row.availability_zone)
        self.cpu_arch.put(position, facts.cpu_arch)
        self.hypervisor_type.put(position, facts.hypervisor_type.lower())
        self.hypervisor_name.put(position, facts.hypervisor_type)
        self.cpu_model.put(position, facts.cpu_model)
        self.cpu_features.put(position, " ".join(facts.cpu_features))
        self.guest_cpu_features.put(position, " ".join(facts.guest_cpu))
        self.machine_types.put(position, " ".join(facts.machine_types))
        self.host_ip.put(position, facts.host_ip if row.facts else "")
        self.uuid.put(position, row.uuid)
        self._put_images(row.id, facts.cached_images)
        self.virt_types.put(position, facts.virt_types)
        self.vm_modes.put(position, facts.extra.get("vm_modes", "hvm").split(",") if row.facts else ())
        self.disk_formats.put(position, facts.disk_formats)
        self.metrics.put(position, facts.metrics)
