"""What must be true of a house at rest, whatever was killed on the way there: all that the product's own doctor knows to look for
(`hullwright.conductor.reconcile`), and what only tests can know.

That is: that the house is to be at rest at all; what the journals of fake hosts tell of each effect; what its users wished for; and a text
that is in user data and must be nowhere else. Not for: what a given story should end in; that is its test's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import orjson
import sqlalchemy as sa

from hullwright.conductor.reconcile.doctor import Doctor
from hullwright.conductor.reconcile.findings import KINDS
from hullwright.drivers.fake_host import FakeHost, is_fake
from hullwright.objects.hosts import HostRef
from hullwright.objects.states import OPEN_JOB_STATES, PowerState, VmState
from hullwright.persistence.models import metadata
from hullwright.persistence.models.hosts import hosts
from hullwright.persistence.models.images import images
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import attempts, jobs
from hullwright.persistence.models.networks import addresses, ports, subnets
from hullwright.persistence.models.volumes import volumes
from support.house import House

# What kills leave behind rightly: a lease that has to run out, a part of an image to go on from.
_OF_KILLS = {"conductor_stale", "base_image_half"}
_POWER = {VmState.ACTIVE: PowerState.RUNNING, VmState.STOPPED: PowerState.SHUTDOWN}


def check(house: House, *, marker: str | None = None, twins_on: Collection[str] = ()) -> None:
    """Assert all of it. `marker`: a text that stands in user data and nowhere else. `twins_on`: hosts whose calls hung, where a guest may
    have outlived its build's stay for a while.
    """
    _check_rest(house)
    check_placed(house)
    _check_drift(house)
    _check_wishes(house)
    _check_fake_hosts(house, twins_on)
    if marker is not None:
        _check_secret(house, marker)


def _check_rest(house: House) -> None:
    """Nothing is left to be done."""
    with house.db.read() as connection:
        left = connection.execute(sa.select(jobs.c.kind, jobs.c.state, jobs.c.error).where(jobs.c.state.in_(OPEN_JOB_STATES))).all()
    assert left == [], "work is left"


def check_placed(house: House) -> None:
    """Whoever has a host has left the queue for room, and its attempt tells why it is there. It is so at every moment, not only at rest."""
    with house.db.read() as connection:
        its = sa.and_(instances.c.uuid == jobs.c.instance_uuid, instances.c.host.is_not(None))
        waiting = connection.execute(sa.select(jobs.c.uuid).join(instances, its).where(jobs.c.waits_for.is_not(None))).scalars().all()
        placed = connection.execute(sa.select(attempts).where(attempts.c.host.is_not(None))).all()
    assert waiting == [], "builds with a host stand in the queue for room"
    for row in placed:
        reported = row.report.get("chosen")
        assert row.host in (reported, *row.alternates), f"attempt {row.number} of {row.job_uuid} is on {row.host}, its report: {reported}"


def _check_wishes(house: House) -> None:
    """What the product would take for its user's will: nobody has paused or suspended a guest, and made a port without an address."""
    with house.db.read() as connection:
        columns = (instances.c.uuid, instances.c.vm_state, instances.c.power_state)
        rests = connection.execute(sa.select(*columns).where(instances.c.host.is_not(None))).all()
        addressed = sa.exists().where(addresses.c.port_id == ports.c.id)
        could_be = sa.exists().where(subnets.c.network_id == ports.c.network_id)
        bare = connection.execute(sa.select(ports.c.id).where(ports.c.device_id.is_not(None), could_be, ~addressed)).scalars().all()
    assert bare == [], "ports without an address"
    for row in rests:
        assert _POWER.get(VmState(row.vm_state)) == row.power_state, f"{row.uuid} is {row.vm_state}, its power state {row.power_state}"


def _check_drift(house: House) -> None:
    """`hullwright doctor` finds nothing."""
    drivers = house.drivers()
    try:
        look = Doctor(house.db, drivers, house.conf).look(kinds=KINDS.keys() - _OF_KILLS, deep=True)
    finally:
        drivers.close()
    told = [f"{it.kind} {it.subject}{f' on {it.host}' if it.host else ''}: {it.evidence}" for it in look.findings]
    assert told == [], "hullwright doctor finds drift: " + "; ".join(told)
    assert look.silent == {}, "a host could not be asked"


# --- Fake hosts ----------------------------------------------------------------------------------------------------------


def _check_fake_hosts(house: House, twins_on: Collection[str]) -> None:
    with house.db.read() as connection:
        known = [HostRef(*row) for row in connection.execute(sa.select(hosts.c.name, hosts.c.uri, hosts.c.driver))]
    fakes = [FakeHost(ref, house.conf.state_path) for ref in known if is_fake(ref)]
    for host in fakes:
        _check_things(house, host)
        _check_effects(host)
    _check_no_twins([host for host in fakes if host.name not in twins_on and not _is_silent(host)])


def _check_things(house: House, host: FakeHost) -> None:
    """Network entries, volumes' bytes and whole images on the host are those of the records."""
    with house.db.read() as connection:
        here = sa.select(instances.c.uuid, instances.c.spec).where(instances.c.host == host.name, instances.c.deleted_at.is_(None))
        plugged = {row.uuid for row in connection.execute(here) if row.spec["networks"]}
        bytes_of = set(connection.execute(sa.select(volumes.c.id).where(volumes.c.host == host.name)).scalars())
        sizes = dict(connection.execute(sa.select(images.c.id, images.c.size_bytes)).tuples().all())
    assert set(host.things.all("plugs")) == plugged, f"network entries on {host.name}"
    assert set(host.things.all("volumes")) == bytes_of, f"volumes' bytes on {host.name}"
    for image_id, thing in host.things.all("images").items():
        assert thing["size_bytes"] == sizes.get(image_id, thing["size_bytes"]), f"image {image_id} on {host.name} is not whole"


def _check_effects(host: FakeHost) -> None:
    """No effect took place twice without being undone between, and none was undone that had not been."""
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


def _is_silent(host: FakeHost) -> bool:
    return any(rule.error == "HypervisorUnavailable" for rule in host.faults.rules())


def _check_no_twins(fakes: list[FakeHost]) -> None:
    """At no time had an instance two guests. A host that was silent is left out: there the first is removed when it answers again."""
    effects = [(effect["at"], host.name, effect) for host in fakes for effect in host.effects()]
    changes = [each for each in effects if each[2]["operation"] in ("define", "destroy")]
    lives_on: dict[str, str] = {}
    for _, host_name, effect in sorted(changes, key=lambda change: change[0]):
        if effect["operation"] == "define":
            other = lives_on.get(effect["key"])
            assert other is None, f"{effect['key']} was made on {host_name} while it was on {other}"
            lives_on[effect["key"]] = host_name
        else:
            lives_on.pop(effect["key"], None)


# --- Secrets -------------------------------------------------------------------------------------------------------------


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
