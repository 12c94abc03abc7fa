"""Findings: what is wrong, where, since when, by which evidence, and what would mend it. The kinds of them, in one table.

Not for: finding (`checks`) or mending (`repairs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hullwright.objects.records import Record


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of being wrong."""

    title: str
    repair: str  # what mending does, or what a person can do
    needs_consent: bool = False  # it might be somebody's after all: `doctor --fix` alone does not
    is_mendable: bool = True  # False: no repair is safe, a person must decide


KINDS: dict[str, Kind] = {
    # --- Records against records
    "allocation_without_instance": Kind("resources are held for an instance that has no guest", "give the resources back"),
    "instance_without_allocation": Kind("an instance on a host holds not what it takes there", "record what it takes"),
    "usage_miscounted": Kind("a host's count of used resources is not the sum of its allocations", "count again"),
    "port_without_instance": Kind("a port belongs to an instance that has no guest", "delete it, or free it when a user made it"),
    "address_without_port": Kind("an address is taken by a port that is gone", "free the address"),
    "port_misbound": Kind("a port is bound to another host than its instance's", "record where its instance is"),
    "ports_differ": Kind(
        "an instance on a host has other ports than it asked for",
        "look at its history; rebuild its data on a new server and delete this one",
        is_mendable=False,
    ),
    "attachment_without_instance": Kind(
        "a volume is attached to an instance that has no guest", "free the volume; delete what a build made"
    ),
    "attachment_misplaced": Kind(
        "a volume is not attached where its instance is",
        "see on the host whether the guest has it; if not, save what the guest holds and delete the server, which frees the volume",
        is_mendable=False,
    ),
    "attachments_differ": Kind(
        "an instance on a host has other volumes than it asked for",
        "look at its history; save what the guest holds and delete the server, which frees its volumes",
        is_mendable=False,
    ),
    "volume_stuck": Kind("a volume is in a state that nobody will bring it out of", "bring it to rest"),
    "instance_stranded": Kind("an instance waits for work that nobody has", "bring it to rest; undo what was built of it"),
    "instance_inconsistent": Kind(
        "an instance's state, host and deletion contradict each other",
        "look at its history and its host; reset its state to what it is, or delete the server",
        is_mendable=False,
    ),
    "image_abandoned": Kind("an image waits for bytes that nobody sends", "let it be uploaded again"),
    # --- Work
    "job_stuck": Kind("a job stopped where it can neither go on nor be undone", "undo it by other means, or begin it anew"),
    "job_without_instance": Kind("a job is open for an instance that is gone", "cancel it"),
    "job_orphaned": Kind("a job is leased to a conductor that is gone", "put it back in the queue"),
    "flow_unknown": Kind("a job was begun by a version that this one does not know", "give it up and undo it by other means"),
    "attempt_unclosed": Kind("an attempt of a build that has ended is still open", "close it"),
    "action_unclosed": Kind("an action of a job that has ended is still open", "close it"),
    "job_inconsistent": Kind(
        "a job's end is not that of its flow, or somebody still owns it",
        "look at the server and its host: nothing goes on by itself; keep the job's record and report it as a defect",
        is_mendable=False,
    ),
    "history_broken": Kind(
        "the history of a job has a gap, is out of order, or tells a success that was none",
        "the past is not mended; look at the server and its host, keep the record and report it as a defect",
        is_mendable=False,
    ),
    "conductor_stale": Kind("a conductor's lease ran out and nobody cleared it away", "forget the conductor"),
    # --- Records against hosts
    "guest_of_deleted": Kind("the guest of a deleted instance is still on a host", "destroy it"),
    "guest_misplaced": Kind("an instance that is on no host has a guest", "destroy it"),
    "guest_elsewhere": Kind("a guest is on another host than its instance", "destroy it", needs_consent=True),
    "guest_unknown": Kind("a guest carries our mark, and there is no record of it", "destroy it", needs_consent=True),
    "guest_missing": Kind("an instance has no guest on its host", "set the instance to ERROR and say why; guests are never made anew"),
    "power_state_wrong": Kind("an instance's power state is not that of its guest", "bring it in line, as is done periodically"),
    "files_left": Kind("files are left of an instance that is deleted or on no host", "delete them"),
    # A pool that hosts share, which [libvirt] pool_shared does not say, shows the same files on each of them.
    "files_elsewhere": Kind("files of an instance are on another host too", "delete them; not when hosts share a pool", needs_consent=True),
    "files_unknown": Kind("files are named as an instance's, and there is no record of it", "delete them", needs_consent=True),
    # The same of volumes: a directory that hosts share, which [volume] shared does not say.
    "volume_file_misplaced": Kind("bytes of a volume are on a host where they are not on record", "delete them", needs_consent=True),
    "volume_file_unknown": Kind("bytes of a volume that there is no record of", "delete them", needs_consent=True),
    "base_image_half": Kind("a base image was left half sent", "delete it, unless somebody goes on with it"),
    # Found by hand only: what was written to must be read back whole.
    "base_image_damaged": Kind("a base image on a host is not what was verified there", "put it away, unless guests stand on it"),
    "network_left": Kind("a deleted network is still on a host", "take it off, when nobody is plugged into it"),
    "network_entry_left": Kind("a host still has the DHCP entry of a port that is gone", "remove it"),
}


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """Something that is wrong."""

    kind: str
    subject: str  # uuid or name of what it is about
    evidence: str
    host: str | None = None
    instance_uuid: str | None = None
    since: float | None = None  # seconds since the epoch, where the records say it; else when it was first seen
    mark: str = ""  # changes when somebody is at it, and then it is another finding
    data: Mapping[str, Any] = field(default_factory=dict)  # for the repair

    @property
    def key(self) -> str:
        """The same for the same thing found again."""
        return "|".join((self.kind, self.subject, self.host or "", self.mark))

    @property
    def repair(self) -> str:
        """What would mend it."""
        return KINDS[self.kind].repair


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """What became of a finding."""

    finding: Finding
    state: str  # found, mended, posted (a job does it), gone, refused, failed
    text: str = ""
    job_uuid: str | None = None
