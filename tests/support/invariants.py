"""What must be true of a house at rest, whatever was killed on the way there.

`check` asserts all of it; each message names what is wrong. Not for: what a given story should end in; that is its test's to say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import orjson
import sqlalchemy as sa

from hullwright.conductor.reconcile.doctor import Doctor
from hullwright.conductor.reconcile.findings import KINDS
from hullwright.drivers.fake_host import FakeHost, is_fake
from hullwright.objects.hosts import HostRef
from hullwright.objects.instances import RequestSpec
from hullwright.objects.states import OPEN_JOB_STATES, JobState, VmState
from hullwright.persistence.models import metadata
from hullwright.persistence.models.hosts import allocations, hosts, inventories
from hullwright.persistence.models.images import images
from hullwright.persistence.models.instances import instance_actions, instances
from hullwright.persistence.models.jobs import atoms, attempts, flows, jobs, step_events
from hullwright.persistence.models.networks import addresses, ports, subnets
from hullwright.persistence.models.volumes import attachments, volumes
from support.house import House

_PLACED = {VmState.ACTIVE, VmState.STOPPED}
_RESTING = {*_PLACED, VmState.ERROR, VmState.DELETED}
_RESTING_VOLUMES = {"available", "in-use", "error"}
_POWER = {VmState.ACTIVE: 1, VmState.STOPPED: 4}
# What a step must have come from to arrive at a state, in its own last event. RESUMED: a conductor took it up again after a crash.
_BEFORE = {
    "SUCCESS": {"RUNNING", "RESUMED"},
    "FAILURE": {"RUNNING", "RESUMED"},
    "REVERTED": {"REVERTING", "RESUMED"},
    "REVERT_FAILURE": {"REVERTING", "RESUMED"},
}
_TABLES = (
    *(instances, instance_actions, allocations, inventories, hosts, jobs, flows, atoms, attempts, step_events),
    *(ports, addresses, subnets, attachments, volumes, images),
)


# What a crash leaves behind rightly: a lease that has to run out, a part of an image to go on from, a stuck job with its evidence.
_OF_CRASHES = {"conductor_stale", "base_image_half", "job_stuck"}


class _Rows:
    """All rows of the house, read once."""

    def __init__(self, house: House) -> None:
        with house.db.read() as connection:
            self._rows = {table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in _TABLES}
        self.living = {row["uuid"]: row for row in self[instances] if row["deleted_at"] is None}
        self.placed = {uuid: row for uuid, row in self.living.items() if row["host"] is not None}
        self.specs = {uuid: RequestSpec.from_dict(row["spec"]) for uuid, row in self.placed.items()}
        self.hosts = {row["id"]: HostRef(row["name"], row["uri"], row["driver"]) for row in self[hosts]}

    def __getitem__(self, table: sa.Table) -> list[dict[str, Any]]:
        return self._rows[table.name]


def check(house: House, *, marker: str | None = None, twins_on: Collection[str] = ()) -> None:
    """Assert all of it. `marker`: a text that stands in user data and nowhere else. `twins_on`: hosts whose calls hung, where a guest may
    have outlived its build's stay for a while.
    """
    rows = _Rows(house)
    _check_work(rows)
    _check_instances(rows)
    _check_claims(rows)
    _check_ports(rows)
    _check_volumes(rows)
    _check_history(rows)
    _check_hosts(house, rows, twins_on)
    _check_drift(house)
    if marker is not None:
        _check_secret(house, marker)


def _check_drift(house: House) -> None:
    """The product's own doctor finds the house clean: its checks and those here are two opinions of one thing."""
    drivers = house.drivers()
    try:
        found = Doctor(house.db, drivers, house.conf).look(kinds=[kind for kind in KINDS if kind not in _OF_CRASHES])
    finally:
        drivers.close()
    assert found.findings == (), "hullwright doctor finds drift"


def _check_work(rows: _Rows) -> None:
    """Every flow is done, cleanly undone, or stuck with its evidence; every action has ended with its job."""
    assert [(job["kind"], job["state"]) for job in rows[jobs] if job["state"] in OPEN_JOB_STATES] == [], "work is left"
    flow_states = {row["uuid"]: row["state"] for row in rows[flows]}
    atom_states = defaultdict(set)
    for atom in rows[atoms]:
        atom_states[atom["flow_uuid"]].add(atom["state"])
    for job in rows[jobs]:
        about = f"{job['kind']} {job['uuid']}"
        assert job["owner"] is None or job["state"] in OPEN_JOB_STATES, f"{about} has ended and has an owner"
        if job["state"] == JobState.STUCK:
            assert job["error"], f"{about} is stuck and does not say why"
        elif job["uuid"] in flow_states:
            wanted = {JobState.DONE: "SUCCESS", JobState.REVERTED: "REVERTED"}.get(job["state"])
            assert flow_states[job["uuid"]] == wanted, f"{about} is {job['state']}, its flow {flow_states[job['uuid']]}"
            allowed = {"SUCCESS"} if job["state"] == JobState.DONE else {"REVERTED", "PENDING", None}
            assert atom_states[job["uuid"]] <= allowed, f"{about} is {job['state']}, its steps {atom_states[job['uuid']]}"
    ended = {job["uuid"] for job in rows[jobs] if job["state"] != JobState.STUCK}
    for action in rows[instance_actions]:
        assert action["finished_at"] or action["job_uuid"] not in ended, f"action {action['action']} of a job that has ended is open"
    assert [a for a in rows[attempts] if a["state"] == "running"] == [], "an attempt was never closed"


def _check_instances(rows: _Rows) -> None:
    for row in rows[instances]:
        about = f"{row['uuid']} rests in {row['vm_state']}/{row['task_state']} on {row['host']}"
        assert (row["vm_state"] in _RESTING, row["task_state"]) == (True, None), about
        assert (row["vm_state"] in _PLACED) == (row["host"] is not None), about
        assert (row["vm_state"] == VmState.DELETED) == (row["deleted_at"] is not None), about


def _check_claims(rows: _Rows) -> None:
    """Allocations are what placed instances asked for, on their hosts; counters are the sums of rows."""
    held: dict[str, dict[str, int]] = defaultdict(dict)
    sums, holders, builds = (Counter[tuple[int, str]]() for _ in range(3))
    for claim in rows[allocations]:
        assert claim["instance_uuid"] in rows.placed, f"{claim['instance_uuid']} holds a claim and lives nowhere"
        assert rows.hosts[claim["host_id"]].name == rows.placed[claim["instance_uuid"]]["host"], "a claim on another host"
        held[claim["instance_uuid"]][claim["resource_class"]] = claim["amount"]
        sums[claim["host_id"], claim["resource_class"]] += claim["amount"]
        holders[claim["host_id"], claim["resource_class"]] += 1
        builds[claim["host_id"], claim["resource_class"]] += claim["job_uuid"] is not None
    for uuid, spec in rows.specs.items():
        wanted = {name: amount for name, amount in spec.resources().items() if amount}
        assert held.get(uuid, {}) == wanted, f"{uuid} holds {held.get(uuid)}, its flavor is {wanted}"
    for room in rows[inventories]:
        key, host = (room["host_id"], room["resource_class"]), rows.hosts[room["host_id"]].name
        counted = (sums[key], holders[key], builds[key])
        told = (room["used"], room["holders"], room["building"])
        assert told == counted, f"{host} counts {told} of {room['resource_class']} used, by instances, by builds; its claims are {counted}"


def _check_ports(rows: _Rows) -> None:
    """A port in use is bound where its instance lives; what a build made is gone with it; addresses belong to ports."""
    by_id = {port["id"]: port for port in rows[ports]}
    wanted = {request.port_id: uuid for uuid, spec in rows.specs.items() for request in spec.networks}
    for port in rows[ports]:
        owner = port["device_id"]
        assert owner or not port["created_by_build"], f"port {port['id']} was made by a build and belongs to nobody"
        if owner:
            assert owner in rows.placed, f"port {port['id']} belongs to {owner}, which lives nowhere"
            assert (wanted.get(port["id"]), port["host"]) == (owner, rows.placed[owner]["host"]), f"port {port['id']} is bound wrongly"
        else:
            assert port["host"] is None, f"port {port['id']} is free and bound to {port['host']}"
    assert set(wanted) <= set(by_id), "a port that an instance asked for is missing"
    with_subnets = {subnet["network_id"] for subnet in rows[subnets]}
    addressed = {address["port_id"] for address in rows[addresses]}
    assert addressed <= set(by_id), "an address belongs to no port"
    for port_id in wanted:
        assert by_id[port_id]["network_id"] not in with_subnets or port_id in addressed, f"port {port_id} has no address"


def _check_volumes(rows: _Rows) -> None:
    """A volume is attached to exactly the instance that asked for it, or free, or in error."""
    attached = {attachment["volume_id"]: attachment for attachment in rows[attachments]}
    for volume in rows[volumes]:
        about = f"volume {volume['id']} rests as {volume['status']}"
        assert volume["status"] in _RESTING_VOLUMES, about
        assert (volume["status"] == "in-use") == (volume["id"] in attached), about
    wanted = {device.attachment_id: uuid for uuid, spec in rows.specs.items() for device in spec.block_devices}
    for attachment in rows[attachments]:
        owner = attachment["instance_uuid"]
        assert wanted.get(attachment["id"]) == owner, f"attachment {attachment['id']} belongs to {owner}, which lives nowhere"
        assert (attachment["state"], attachment["host"]) == ("attached", rows.placed[owner]["host"]), f"attachment {attachment['id']}"
    assert set(wanted) == {attachment["id"] for attachment in rows[attachments]}, "an attachment that was asked for is missing"


def _check_history(rows: _Rows) -> None:
    """No gap, no older owner after a newer one, and no step that ended without having begun."""
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in sorted(rows[step_events], key=lambda event: event["seq"]):
        told[event["job_uuid"]].append(event)
    for job in rows[jobs]:
        history = told[job["uuid"]]
        about = f"the history of {job['kind']} {job['uuid']}"
        assert [event["seq"] for event in history] == list(range(1, len(history) + 1)), f"a gap in {about}"
        assert job["seq"] == len(history), f"{about} has {len(history)} events, the job counts {job['seq']}"
        fences = [event["fence"] for event in history]
        assert fences == sorted(fences), f"an old owner wrote into {about}"
        last: dict[str, str] = {}
        for event in history:
            step, state = event["step"], event["to_state"]
            if step and state in _BEFORE:
                assert last.get(step) in _BEFORE[state], f"{step} went from {last.get(step)} to {state} in {about}"
            last[step] = state


def _check_hosts(house: House, rows: _Rows, twins_on: Collection[str]) -> None:
    """Guests, files and volumes on each host are those of the instances that live there, in the power state that is told."""
    drivers = house.drivers()
    for host in rows.hosts.values():
        virt = drivers.virt(host)
        here = {uuid for uuid, row in rows.placed.items() if row["host"] == host.name}
        found = {guest.uuid: guest for guest in virt.guests() if guest.ours}
        assert set(found) == here, f"guests on {host.name}: {sorted(found)}, of the instances there: {sorted(here)}"
        assert set(virt.leftovers()) <= here, f"files on {host.name}"
        for uuid, guest in found.items():
            row = rows.placed[uuid]
            assert (guest.power_state, row["power_state"]) == (_POWER[row["vm_state"]],) * 2, f"{uuid} is {row['vm_state']}"
        if is_fake(host):
            _check_fake_host(FakeHost(host, house.conf.state_path), rows, here)
    _check_no_twins(house, rows, twins_on)
    drivers.close()


def _check_fake_host(host: FakeHost, rows: _Rows, here: set[str]) -> None:
    """What a fake host's journal says is there, and that no effect took place twice without being undone between."""
    plugged = {uuid for uuid in here if rows.specs[uuid].networks}
    assert set(host.things.all("plugs")) == plugged, f"network entries on {host.name}"
    bytes_of = {volume["id"] for volume in rows[volumes] if volume["host"] == host.name}
    assert set(host.things.all("volumes")) == bytes_of, f"volumes' bytes on {host.name}"
    sizes = {image["id"]: image["size_bytes"] for image in rows[images]}
    for image_id, thing in host.things.all("images").items():
        assert thing["size_bytes"] == sizes.get(image_id, thing["size_bytes"]), f"image {image_id} on {host.name} is not whole"
    made = {"define": "destroy", "plug": "unplug", "create_volume": "delete_volume"}
    undone = {undo: do for do, undo in made.items()}
    present = Counter[tuple[str, str]]()
    for effect in host.effects():
        operation = effect["operation"]
        if operation in made:
            present[operation, effect["key"]] += 1
            assert present[operation, effect["key"]] == 1, f"{operation} of {effect['key']} twice on {host.name}"
        elif operation in undone:
            present[undone[operation], effect["key"]] -= 1
            assert present[undone[operation], effect["key"]] == 0, f"{operation} of {effect['key']} undid nothing on {host.name}"


def _check_no_twins(house: House, rows: _Rows, twins_on: Collection[str]) -> None:
    """At no time had an instance two guests. A host that was silent is left out: there the first is removed when it answers again."""
    changes = []
    for ref in rows.hosts.values():
        if is_fake(ref):
            host = FakeHost(ref, house.conf.state_path)
            if ref.name not in twins_on and not any(rule.error == "HypervisorUnavailable" for rule in host.faults.rules()):
                changes += [(effect["at"], host.name, effect) for effect in host.effects() if effect["operation"] in ("define", "destroy")]
    lives_on: dict[str, str] = {}
    for _, host_name, effect in sorted(changes, key=lambda change: change[0]):
        if effect["operation"] == "define":
            other = lives_on.get(effect["key"])
            assert other is None, f"{effect['key']} was made on {host_name} while it was on {other}"
            lives_on[effect["key"]] = host_name
        else:
            lives_on.pop(effect["key"], None)


def _check_secret(house: House, marker: str) -> None:
    """User data is in its own column and nowhere else: no other text, no log, no file of a host."""
    with house.db.read() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)).mappings():
                for name, value in row.items():
                    if (table.name, name) != ("instances", "user_data"):
                        assert marker not in _text(value), f"user data in {table.name}.{name}"
    assert marker not in house.logs(), "user data in a log"
    for path in _journals(house):
        assert marker not in path.read_text(errors="replace"), f"user data in {path.name}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, default=repr).decode()


def _journals(house: House) -> Iterator[Any]:
    return house.directory.glob("fake/*/journal")
