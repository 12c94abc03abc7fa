"""Checks of records against what is on the hosts: guests, files, base images, networks. Foreign guests are nobody's business."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from hullwright.conductor.reconcile import power
from hullwright.conductor.reconcile.findings import Finding
from hullwright.conductor.reconcile.view import Answer, View, in_batches
from hullwright.objects.states import PowerState, VmState
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.volumes import attachments, volumes

_HAVE_GUESTS = (VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED)


def _answers(view: View) -> Iterator[tuple[str, Answer]]:
    return iter(sorted(view.answers.items()))


def _wanted(view: View, found: Iterable[str]) -> list[str]:
    return [uuid for uuid in found if view.only in (None, uuid)]


def _place(view: View, uuids: Iterable[str], host: str) -> Iterator[tuple[str, str, str, float | None]]:
    """Of instances that something was found of on a host: uuid, how it stands with each (deleted, nowhere, elsewhere, unknown), words."""
    found = _wanted(view, uuids)
    known = view.known_instances(found)
    for uuid in sorted(found):
        row = known.get(uuid)
        if row is None:
            yield uuid, "unknown", "there is no record of the instance", None
        elif view.changed_meanwhile(row):
            continue
        elif row.deleted_at is not None:
            yield uuid, "deleted", "the instance is deleted", row.deleted_at
        elif row.host is None:
            yield uuid, "nowhere", f"the instance is {row.vm_state} and on no host", row.updated_at
        elif row.host != host:
            yield uuid, "elsewhere", f"the instance is on host {row.host}", row.updated_at


def _guests(view: View, kinds: dict[str, str]) -> Iterator[Finding]:
    for host, answer in _answers(view):
        ours = {guest.uuid: guest for guest in answer.guests if guest.ours}
        for uuid, standing, words, since in _place(view, ours, host):
            if standing in kinds:
                guest = ours[uuid]
                evidence = f"{guest.name} is {guest.power_state.name}: {words}"
                yield Finding(kinds[standing], uuid, evidence, host, uuid, since)


def guest_of_deleted(view: View) -> Iterator[Finding]:
    """A deleted instance has no guest."""
    return _guests(view, {"deleted": "guest_of_deleted"})


def guest_misplaced(view: View) -> Iterator[Finding]:
    """An instance that is on no host has no guest."""
    return _guests(view, {"nowhere": "guest_misplaced"})


def guest_elsewhere(view: View) -> Iterator[Finding]:
    """An instance has its guest on its own host only."""
    return _guests(view, {"elsewhere": "guest_elsewhere"})


def guest_unknown(view: View) -> Iterator[Finding]:
    """Every guest of ours is an instance's."""
    return _guests(view, {"unknown": "guest_unknown"})


def guest_missing(view: View) -> Iterator[Finding]:
    """Every instance that should have a guest has it."""
    columns = (instances.c.uuid, instances.c.vm_state, instances.c.updated_at)
    for host, answer in _answers(view):
        here = {guest.uuid for guest in answer.guests}
        query = sa.select(*columns).where(
            instances.c.host == host,
            instances.c.deleted_at.is_(None),
            instances.c.vm_state.in_(_HAVE_GUESTS),
            view.about(instances.c.uuid),
        )
        for row in view.conn.execute(query):
            if row.uuid not in here and not view.changed_meanwhile(row):
                evidence = f"it is {row.vm_state}, and its host has no such guest"
                yield Finding("guest_missing", row.uuid, evidence, host, row.uuid, row.updated_at, row.vm_state)


def power_state_wrong(view: View) -> Iterator[Finding]:
    """An instance is told to be in the power state that its guest is in, and its guest in one that fits the instance's state."""
    columns = (instances.c.uuid, instances.c.vm_state, instances.c.power_state, instances.c.updated_at)
    for host, answer in _answers(view):
        seen = {guest.uuid: guest.power_state for guest in answer.guests if guest.ours}
        query = sa.select(*columns).where(
            instances.c.host == host, instances.c.deleted_at.is_(None), instances.c.task_state.is_(None), view.about(instances.c.uuid)
        )
        for row in view.conn.execute(query):
            state = seen.get(row.uuid)
            if state is None or view.known_before.get(row.uuid) != row.updated_at:
                continue  # the guest is missing, which is another finding; or the record is younger than what the host told
            if row.power_state != state or power.remedy(row.vm_state, state) is not power.Remedy.NONE:
                evidence = f"it is {row.vm_state}, told to be {_name(row.power_state)}; its guest is {state.name}"
                data = {"seen": state.name, "updated_at": row.updated_at}
                mark = f"{state.name} {row.power_state}"
                yield Finding("power_state_wrong", row.uuid, evidence, host, row.uuid, row.updated_at, mark, data)


def _name(power_state: int) -> str:
    return PowerState(power_state).name if power_state in set(PowerState) else str(power_state)


def _files(view: View, kinds: dict[str, str]) -> Iterator[Finding]:
    for host, answer in _answers(view):
        bare = answer.files - {guest.uuid for guest in answer.guests}  # those of a guest go with it, or are not ours to judge
        for uuid, standing, words, since in _place(view, bare, host):
            if standing in kinds and not (standing == "elsewhere" and answer.shares_files):
                yield Finding(kinds[standing], uuid, f"disks, config drive or log, and no guest: {words}", host, uuid, since)


def files_left(view: View) -> Iterator[Finding]:
    """An instance that is on no host has no files."""
    return _files(view, {"deleted": "files_left", "nowhere": "files_left"})


def files_elsewhere(view: View) -> Iterator[Finding]:
    """An instance has files on its own host only."""
    return _files(view, {"elsewhere": "files_elsewhere"})


def files_unknown(view: View) -> Iterator[Finding]:
    """All files are an instance's."""
    return _files(view, {"unknown": "files_unknown"})


def _volume_files(view: View) -> Iterator[tuple[str, str, Any]]:
    """Host, volume id, and row (host, status, instance_uuid of who has it attached) or None, of all volumes' bytes on hosts."""
    columns = (volumes.c.id, volumes.c.host, volumes.c.status, volumes.c.created_at, attachments.c.instance_uuid)
    query = sa.select(*columns).outerjoin(attachments, attachments.c.volume_id == volumes.c.id)
    for host, answer in _answers(view):
        found = _wanted(view, answer.volumes)
        known: dict[str, Any] = {}
        for batch in in_batches(found):
            known |= {row.id: row for row in view.conn.execute(query.where(volumes.c.id.in_(batch)))}
        for volume_id in found:
            row = known.get(volume_id)
            is_at_home = row is not None and (row.host == host or (row.host is not None and answer.shares_volumes))
            if not is_at_home and volume_id not in view.busy_volumes:
                yield host, volume_id, row


def volume_file_misplaced(view: View) -> Iterator[Finding]:
    """A volume's bytes are where its record says, and nowhere else. Who is about to use one that has none yet may be making them."""
    for host, volume_id, row in _volume_files(view):
        if row is not None and (row.host is not None or row.status not in ("reserved", "attaching", "in-use")):
            evidence = f"the volume is {row.status} on {f'host {row.host}' if row.host else 'no host'}"
            yield Finding("volume_file_misplaced", volume_id, evidence, host, row.instance_uuid, row.created_at, str(row.host))


def volume_file_unknown(view: View) -> Iterator[Finding]:
    """All volumes' bytes are a volume's."""
    for host, volume_id, row in _volume_files(view):
        if row is None:
            yield Finding("volume_file_unknown", volume_id, "there is no record of the volume", host)


def base_image_half(view: View) -> Iterator[Finding]:
    """Whatever is half sent has somebody who sends."""
    for host, answer in _answers(view):
        for image_id in _wanted(view, answer.half_images):
            mark = answer.half_images[image_id]
            yield Finding("base_image_half", image_id, f"it is not whole (at {mark}), and that has not changed", host, mark=mark)


def base_image_damaged(view: View) -> Iterator[Finding]:
    """A base image that counts as whole is what was verified when it came."""
    for host, answer in _answers(view):
        for image_id in _wanted(view, answer.damaged_images):
            yield Finding("base_image_damaged", image_id, answer.damaged_images[image_id], host)


def network_entry_left(view: View) -> Iterator[Finding]:
    """What a host has of a port is of one that there is."""
    for host, answer in _answers(view):
        for left in _wanted(view, answer.entries):
            yield Finding("network_entry_left", left, "there is no record of the port", host)


def network_left(view: View) -> Iterator[Finding]:
    """A deleted network is on no host."""
    for host, answer in _answers(view):
        for network_id in _wanted(view, answer.networks):
            yield Finding("network_left", network_id, "there is no record of it, and nobody is plugged into it", host)
