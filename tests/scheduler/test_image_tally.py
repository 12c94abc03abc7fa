"""Hosts by the images of their instances: the weigher, and that what it needs is read by change."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullwright.conf import opts
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.objects.states import TaskState, VmState
from hullwright.persistence import hosts, instances
from hullwright.scheduler import weighers, weighing
from hullwright.scheduler.columns import Columns, HostRow
from hullwright.scheduler.image_tally import ImageTally
from hullwright.scheduler.request import Request
from hullwright.scheduler.select import Scheduler

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=64, memory_mb=4096, disk_gb=100, disk_free_gb=100)
FLAVOR = Flavor("1", "small", vcpus=1, memory_mb=128, root_gb=1)
LINUX = {"os_distro": "debian", "hw_machine_type": "q35"}
WINDOWS = {"os_distro": "windows", "hw_machine_type": "q35", "owner": "somebody"}


def spec(number, properties, **more):
    return RequestSpec(f"00000000-0000-0000-0000-{number:012}", "p", "u", FLAVOR, "image", image_properties=properties, **more)


def add_instance(conn, number, host, properties):
    asked = spec(number, properties)
    row = Instance(asked.instance_uuid, "vm", "p", "u", VmState.BUILDING, TaskState.SCHEDULING, 0, FLAVOR, "image", "vm", 1.0, 1.0, asked)
    instances.create(conn, row)
    move(conn, number, host)


def move(conn, number, host):
    uuid = spec(number, {}).instance_uuid
    instances.transition(conn, uuid, expected_task_state=(TaskState.SCHEDULING,), task_state=TaskState.SCHEDULING, host=host)


def read(db, tally):
    """Refresh; how many rows that read."""
    before = tally.rows_read
    with db.read() as conn:
        tally.refresh(conn)
    return tally.rows_read - before


def told(tally):
    return {pair: counts for pair, counts in tally._by_pair.items() if counts}


def weigh(conf, tally, names, properties, setting=None):
    conf.set_override("image_props_weight_multiplier", 1.0, "scheduler")
    conf.set_override("image_props_weight_setting", setting or {}, "scheduler")
    columns = Columns([HostRow(number, name) for number, name in enumerate(names, 1)])
    columns.image_tally = tally
    request = Request(spec(99, properties), {}, {}, 0.0, conf)
    weighed = weighing.weigh(
        columns, request, columns.all(), weighers.load(["nova.scheduler.weights.image_props.ImagePropertiesWeigher"], conf)
    )
    return dict(zip(names, weighed.total.tolist(), strict=True))


@pytest.fixture
def mixed(db):
    """One host with neither property, one with two of the one, one with one of the other and two of both, one with one of the first."""
    with db.write() as conn:
        for number, (host, properties) in enumerate(
            [
                ("a", {"os_distro": "windows", "hw_machine_type": "pc"}),
                ("b", {"os_distro": "windows", "hw_machine_type": "q35"}),
                ("c", LINUX),
                ("c", LINUX),
                ("c", {"os_distro": "windows", "hw_machine_type": "q35"}),
                ("d", {"os_distro": "debian", "hw_machine_type": "pc"}),
            ]
        ):
            add_instance(conn, number, host, properties)
    return db


def test_hosts_weigh_by_the_instances_whose_images_have_the_same_properties(mixed, conf):
    tally = ImageTally()
    read(mixed, tally)
    weights = weigh(conf, tally, "abcd", LINUX)  # 0, 1, 3 + 2, 1
    assert weights == {"a": 0.0, "b": 0.2, "c": 1.0, "d": 0.2}
    assert weigh(conf, tally, "abcd", LINUX, {"os_distro": 1.0, "hw_machine_type": 0.0}) == {"a": 0.0, "b": 0.0, "c": 1.0, "d": 0.5}
    assert weigh(conf, tally, "abcd", LINUX, {"os_distro": 10.0}) == {"a": 0.0, "b": 0.0, "c": 1.0, "d": 0.5}, (
        "what is not named counts not"
    )
    assert weigh(conf, tally, "abcd", {"os_distro": "macos"}) == dict.fromkeys("abcd", 0.0)


def test_a_server_that_boots_from_a_volume_is_weighed_by_the_image_that_the_volume_was_made_of(mixed, conf):
    tally = ImageTally()
    read(mixed, tally)
    conf.set_override("image_props_weight_multiplier", 1.0, "scheduler")
    columns = Columns([HostRow(number, name) for number, name in enumerate("abcd", 1)])
    columns.image_tally = tally
    booting = dataclasses.replace(spec(99, LINUX), image_id=None)
    [weigher] = weighers.load(["image_properties"], conf)
    assert weigher.weigh(columns, Request(booting, {}, {}, 0.0, conf)).tolist() == [0.0, 1.0, 5.0, 1.0]


def test_notes_of_an_owner_count_only_when_they_are_named(db, conf):
    with db.write() as conn:
        add_instance(conn, 1, "a", WINDOWS)
    plain, named = ImageTally(), ImageTally(["owner"])
    read(db, plain)
    read(db, named)
    assert weigh(conf, plain, "ab", {"owner": "somebody"}) == {"a": 0.0, "b": 0.0}
    assert weigh(conf, named, "ab", {"owner": "somebody"}, {"owner": 1.0}) == {"a": 1.0, "b": 0.0}


def test_only_instances_that_moved_are_read(db):
    with db.write() as conn:
        for number in range(30):
            add_instance(conn, number, f"h{number % 3}", LINUX)
    tally = ImageTally()
    assert read(db, tally) == 30
    assert read(db, tally) == 0
    with db.write() as conn:
        add_instance(conn, 30, "h1", WINDOWS)
        move(conn, 0, None)
        move(conn, 1, "h2")
        instances.update(conn, spec(2, {}).instance_uuid, name="renamed")
    assert read(db, tally) == 3
    assert told(tally)[("os_distro", "debian")] == {"h0": 9, "h1": 9, "h2": 11}
    assert told(tally)[("os_distro", "windows")] == {"h1": 1}
    assert read(db, tally) == 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_moves_a_tally_that_followed_is_one_that_was_read_anew(db, seed):
    luck = random.Random(seed)
    tally, made = ImageTally(), 0
    columns = Columns([HostRow(number, f"h{number}") for number in range(4)])
    for _ in range(60):
        with db.write() as conn:
            if luck.random() < 0.5 or not made:
                add_instance(conn, made, f"h{luck.randrange(4)}", luck.choice([LINUX, WINDOWS]))
                made += 1
            else:
                move(conn, luck.randrange(made), luck.choice([None, "h0", "h3"]))
        if luck.random() < 0.4:
            chosen = luck.randrange(made + 1)
            tally.note_choice(spec(chosen, {}).instance_uuid, "h1", LINUX)
            if luck.random() < 0.5:
                tally.forget_choice(spec(chosen, {}).instance_uuid)
        if luck.random() < 0.5:
            read(db, tally)
            for number in range(made + 1):
                tally.forget_choice(spec(number, {}).instance_uuid)
            anew = ImageTally()
            read(db, anew)
            assert told(tally) == told(anew)
            for pair in [("os_distro", "debian"), ("os_distro", "windows")]:
                assert tally.on_hosts(columns, pair).tolist() == anew.on_hosts(columns, pair).tolist()


def test_a_scheduler_gathers_like_images_when_asked_to_and_reads_none_otherwise(db, conf):
    with db.write() as conn:
        for name in ("a", "b"):
            hosts.register(conn, name, "fake:///h", "fake")
            hosts.record_facts(conn, name, FACTS, [Inventory("VCPU", 64), Inventory("MEMORY_MB", 4096), Inventory("DISK_GB", 100)])
        add_instance(conn, 1, "b", LINUX)
    usual = Scheduler(db, conf)
    assert usual.select(spec(2, LINUX), {}).host == "a"
    assert usual._surroundings.image_tally is None
    conf.set_override("image_props_weight_multiplier", 10.0, "scheduler")
    gathering = Scheduler(db, conf)
    assert gathering.select(spec(2, LINUX), {}).host == "b"
    assert gathering.select(spec(3, {"os_distro": "windows"}), {}).host == "a"
    assert gathering.select(spec(4, {"os_distro": "windows"}), {}).host == "a", "what was chosen and not yet claimed counts"
    conf.set_override("image_props_weight_multiplier", -10.0, "scheduler")
    assert Scheduler(db, conf).select(spec(5, LINUX), {}).host == "a"


properties = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(["1", "2"]) for name in ("os_distro", "hw_machine_type", "img_hv_type", "owner")}
)


@settings(max_examples=150)
@given(
    there=st.lists(st.tuples(st.sampled_from("abcd"), properties), max_size=12),
    asked=properties,
    setting=st.sampled_from([{}, {"os_distro": 2.0}, {"owner": 1.0, "hw_machine_type": -1.0}, {"img_hv_type": 0.0}]),
)
def test_the_weigher_weighs_as_its_plain_reading(there, asked, setting):
    conf, tally = opts.load([]), ImageTally(setting)
    for number, (host, held) in enumerate(there):
        tally.note_choice(str(number), host, held)
    plain = dict.fromkeys("abcd", 0.0)
    for host, held in there:
        for name, value in held.items():
            if asked.get(name) == value:
                plain[host] += setting.get(name, 0.0) if setting else float(name != "owner")
    low, high = min(plain.values()), max(plain.values())
    expected = {host: (weight - low) / (high - low) if high > low else 0.0 for host, weight in plain.items()}
    assert weigh(conf, tally, "abcd", asked, setting) == pytest.approx(expected)
