"""The filters and weighers on columns agree with a plain reading of their rules, one host at a time.

The plain reading below is written from the documentation of the rules, not from the filters.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullwright.conf import opts
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts
from hullwright.objects.instances import RequestSpec
from hullwright.objects.volumes import BlockDeviceRequest
from hullwright.scheduler import filters, select, weighers, weighing
from hullwright.scheduler.columns import Columns, HostRow
from hullwright.scheduler.filters import destination
from hullwright.scheduler.request import Request

AT = 1_000_000.0
CONF = opts.load([])
CLASSES = ("VCPU", "MEMORY_MB", "DISK_GB")
NAMES = [f"h{number}" for number in range(9)]

host_facts = st.builds(
    HostFacts,
    hostname=st.just("x"),
    hypervisor_type=st.sampled_from(["QEMU", "fake", "Xen"]),
    hypervisor_version=st.sampled_from([6_002_000, 7_002_022, 10_000_000]),
    vcpus=st.just(1),
    memory_mb=st.just(1),
    disk_gb=st.just(1),
    disk_free_gb=st.just(1),
    cpu_arch=st.sampled_from(["x86_64", "aarch64", "i686"]),
    virt_types=st.sampled_from([("qemu",), ("kvm", "qemu"), ("xen",)]),
    machine_types=st.sampled_from([("pc", "pc-q35-7.2", "q35"), ("pc",), ()]),
    disk_formats=st.sampled_from([("raw", "qcow2"), ("raw",), ()]),
    extra=st.sampled_from([{}, {"vm_modes": "hvm,xen"}, {"vm_modes": "exe"}]),
)
amount = st.integers(0, 12)
inventory = st.tuples(amount, st.integers(0, 3), st.sampled_from([0.5, 1.0, 1.5, 4.0]), amount)  # total, reserved, ratio, used


@st.composite
def worlds(draw):
    """Hosts as rows, and what each has of each resource."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=9, unique=True))
    rows, have = [], {}
    for number, name in enumerate(names, 1):
        rows.append(
            HostRow(
                id=number * 3,
                name=name,
                enabled=draw(st.sampled_from([True, True, True, False])),
                forced_down=draw(st.sampled_from([False, False, False, True])),
                availability_zone=draw(st.sampled_from(["nova", "west"])),
                last_seen_at=draw(st.sampled_from([AT, AT, AT - 86_400, 0.0])),
                silent_seconds=draw(st.sampled_from([0.0, 0.0, 60.0, 60.5, 3600.0])),
                failed_builds=draw(st.integers(0, 2)),
                probed_at=draw(st.sampled_from([None, None, AT - 1000, AT - 300, AT - 299])),
                facts=draw(st.none() | host_facts),
            )
        )
        have[name] = {resource: draw(inventory) for resource in CLASSES if draw(st.sampled_from([True, True, True, False]))}
    return rows, have


specs = st.builds(
    RequestSpec,
    instance_uuid=st.just("i"),
    project_id=st.just("p"),
    user_id=st.just("u"),
    flavor=st.builds(
        Flavor, id=st.just("1"), name=st.just("f"), vcpus=st.integers(1, 9), memory_mb=st.integers(1, 9), root_gb=st.integers(0, 9)
    ),
    image_disk_format=st.sampled_from([None, "qcow2", "raw", "ami", "vmdk", "iso"]),
    image_properties=st.fixed_dictionaries(
        {},
        optional={
            "hw_architecture": st.sampled_from(["x86_64", "AMD64", "arm64", "i386", "s390x"]),
            "img_hv_type": st.sampled_from(["kvm", "QEMU", "xapi", "fake", "lxc"]),
            "img_hv_requested_version": st.sampled_from([">=7.0", "<7.2.22", ">=6.2,<8", "==10", "!=6.2", "new"]),
            "hw_vm_mode": st.sampled_from(["hvm", "xen", "pv", "exe"]),
            "architecture": st.sampled_from(["x86_64", "i386"]),
            "hypervisor_type": st.sampled_from(["kvm", "lxc"]),
            "hypervisor_version_requires": st.sampled_from([">=7.0", "<7"]),
            "vm_mode": st.sampled_from(["hvm", "xen"]),
            "hw_machine_type": st.sampled_from(["q35", "pc", "pc-q35-7.2", "pc-q35"]),
        },
    ),
    block_devices=st.sampled_from([(), (), (BlockDeviceRequest("a", "v", boot_index=0),), (BlockDeviceRequest("a", "v", boot_index=1),)]),
    availability_zone=st.sampled_from([None, None, "nova", "west", "moon"]),
    requested_host=st.none() | st.sampled_from(NAMES),
    force_host=st.none() | st.none() | st.sampled_from(NAMES),
    ignore_hosts=st.lists(st.sampled_from(NAMES), max_size=2).map(tuple),
)
tries = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["libvirt: it broke", "no network"]), max_size=3)


def built(rows, have):
    columns = Columns(rows)
    for row in rows:
        for resource, numbers in have[row.name].items():
            columns.set_resource(resource, columns.positions([row.id]), *numbers)
    return columns


# --- The plain reading ----------------------------------------------------------------------------------------------


def version_meets(version, condition):
    for part in condition.split(","):
        sign = next((s for s in ("<=", ">=", "==", "!=", "<", ">") if part.startswith(s)), "")
        numbers = part[len(sign) :].split(".")
        if not all(number.isdigit() for number in numbers):
            return False
        major, minor, micro = ([int(number) for number in numbers] + [0, 0])[:3]
        wanted = major * 1_000_000 + minor * 1_000 + micro
        truth = {
            "": version == wanted,
            "==": version == wanted,
            "!=": version != wanted,
            "<": version < wanted,
            "<=": version <= wanted,
            ">": version > wanted,
            ">=": version >= wanted,
        }
        if not truth[sign]:
            return False
    return True


def boots_from_volume(spec):
    return any(device.boot_index == 0 for device in spec.block_devices)


def image_reason(spec, facts, default_architecture):
    older = {"hw_architecture": "architecture", "img_hv_type": "hypervisor_type", "hw_vm_mode": "vm_mode"}
    older["img_hv_requested_version"] = "hypervisor_version_requires"
    properties = {name: spec.image_properties[old] for name, old in older.items() if old in spec.image_properties} | spec.image_properties
    if wanted := properties.get("hw_architecture", default_architecture):
        runs_on = {"x86_64": {"x86_64"}, "AMD64": {"x86_64"}, "arm64": {"aarch64"}, "i386": {"i686", "x86_64"}, "s390x": {"s390x"}}
        if facts is None or facts.cpu_arch not in runs_on[wanted]:
            return f"not of architecture {wanted}"
    if wanted := properties.get("img_hv_type"):
        canonical = {"xapi": "xen"}.get(wanted, wanted.lower())
        if facts is None or (canonical not in facts.virt_types and canonical != facts.hypervisor_type.lower()):
            return f"without hypervisor type {wanted}"
    if (wanted := properties.get("img_hv_requested_version")) and not version_meets(facts.hypervisor_version if facts else 0, wanted):
        return f"without hypervisor version {wanted}"
    if wanted := properties.get("hw_vm_mode"):
        modes = () if facts is None else facts.extra.get("vm_modes", "hvm").split(",")
        if {"pv": "xen"}.get(wanted, wanted) not in modes:
            return f"without VM mode {wanted}"
    if (wanted := properties.get("hw_machine_type")) and facts and facts.machine_types and wanted not in facts.machine_types:
        return f"without machine type {wanted}"
    if (
        (wanted := spec.image_disk_format)
        and not boots_from_volume(spec)
        and (facts is None or {"ami": "raw"}.get(wanted, wanted) not in facts.disk_formats)
    ):
        return f"without disk format {wanted}"
    return None


def service_reason(row, spec):
    if not row.enabled:
        return "compute_up", "disabled"
    if row.forced_down or row.last_seen_at == 0 or row.silent_seconds > 60:
        return "compute_up", "down"
    if row.probed_at is not None and AT - row.probed_at < 300:
        return "compute_up", "in quarantine after failed builds"
    if spec.availability_zone and row.availability_zone != spec.availability_zone:
        return "availability_zone", f"outside availability zone {spec.availability_zone}"
    return None


def plain_reason(row, have, spec, tried, known, default_architecture):
    """(check, reason) that a host falls for first, or None."""
    if row.name in spec.ignore_hosts:
        return "destination", "ignored as asked"
    wanted_host = spec.force_host or spec.requested_host
    if wanted_host and row.name != wanted_host:
        unknown = "" if wanted_host in known else " (no host of that name is registered)"
        return "destination", f"not the host asked for{unknown}"
    if row.name in tried:
        return "retry", "already tried"
    if not spec.force_host and (reason := service_reason(row, spec)):
        return reason
    asked = {
        "VCPU": spec.flavor.vcpus,
        "MEMORY_MB": spec.flavor.memory_mb,
        "DISK_GB": 0 if boots_from_volume(spec) else spec.flavor.root_gb,
    }
    words = {"VCPU": "vCPU" if asked["VCPU"] == 1 else "vCPUs", "MEMORY_MB": "MB memory", "DISK_GB": "GB disk"}
    for resource in CLASSES:
        if asked[resource] == 0:
            continue
        total, reserved, ratio, used = have.get(resource, (0, 0, 1.0, 0))
        overcommits_itself = asked[resource] > total - reserved
        if overcommits_itself or used + asked[resource] > (total - reserved) * ratio:
            return "capacity", f"lack {asked[resource]} {words[resource]}"
    reason = None if spec.force_host else image_reason(spec, row.facts, default_architecture)
    return ("image_properties", reason) if reason else None


def plain_weights(rows, have, goes_on_after_a_failure):
    def free(row, resource):
        total, reserved, ratio, used = have[row.name].get(resource, (0, 0, 1.0, 0))
        return (total - reserved) * ratio - used

    sums = dict.fromkeys((row.name for row in rows), 0.0)

    def may_probe(row):
        return row.probed_at is not None and goes_on_after_a_failure

    def failures(row):
        return 0 if may_probe(row) else row.failed_builds

    measures = [(1.0, 0, lambda row, resource=resource: max(0, free(row, resource))) for resource in CLASSES]
    version = (1.0, None, lambda row: row.facts.hypervisor_version if row.facts else 0)
    for multiplier, least, measure in [*measures, version, (-1_000_000.0, None, failures), (1_000_000.0, None, may_probe)]:
        values = {row.name: measure(row) for row in rows}
        if len(set(values.values())) == 1:
            continue
        low, high = min(values.values()) if least is None else least, max(values.values())
        for name, value in values.items():
            sums[name] += multiplier * (value - low) / (high - low) if high > low else 0.0
    return sums


# --- The comparison -------------------------------------------------------------------------------------------------


@settings(max_examples=400)
@given(world=worlds(), spec=specs, tried=tries, architecture=st.sampled_from([None, None, "x86_64", "arm64"]))
def test_columns_and_a_plain_reading_reject_the_same_hosts_for_the_same_reasons(world, spec, tried, architecture):
    rows, have = world
    conf = opts.load([])
    conf.set_override("image_properties_default_architecture", architecture, "scheduler")
    request = Request(spec, spec.resources(), tried, AT, conf)
    chain = [filters.Filter("destination", destination.check), *filters.load(CONF.scheduler.enabled_filters)]
    if spec.force_host:
        chain = select._FORCED
    columns = built(rows, have)
    outcome = select.apply_filters(columns, request, chain)

    known = {row.name for row in rows}
    plain = {row.name: plain_reason(row, have[row.name], spec, tried, known, architecture) for row in rows}
    assert {row.name for row, passes in zip(rows, outcome.passing, strict=True) if passes} == {
        name for name, reason in plain.items() if reason is None
    }
    expected = {reason: {name for name, found in plain.items() if found == reason} for reason in plain.values() if reason}
    told = {(rejection.check, rejection.reason): (rejection.count, set(rejection.hosts)) for rejection in outcome.rejections}
    assert {reason: count for reason, (count, _) in told.items()} == {reason: len(names) for reason, names in expected.items()}
    assert all(sample <= expected[reason] for reason, (_, sample) in told.items())


@settings(max_examples=200)
@given(world=worlds(), spec=specs, architecture=st.sampled_from([None, None, "x86_64", "arm64"]))
def test_what_an_image_asks_for_is_what_its_plain_reading_says(world, spec, architecture):
    """Apart from the other filters, which leave few hosts to it."""
    rows, _ = world
    conf = opts.load([])
    conf.set_override("image_properties_default_architecture", architecture, "scheduler")
    outcome = select.apply_filters(Columns(rows), Request(spec, {}, {}, AT, conf), filters.load(["image_properties"]))
    reasons = [image_reason(spec, row.facts, architecture) for row in rows]
    assert outcome.passing.tolist() == [reason is None for reason in reasons]
    assert {each.reason: each.count for each in outcome.rejections} == {reason: reasons.count(reason) for reason in reasons if reason}


@settings(max_examples=150)
@given(world=worlds(), max_attempts=st.integers(1, 2), tried=tries)
def test_columns_and_a_plain_reading_weigh_alike(world, max_attempts, tried):
    rows, have = world
    columns = built(rows, have)
    spec = RequestSpec("i", "p", "u", Flavor("1", "f", 1, 1, 1), max_attempts=max_attempts)
    chain = weighers.load([*CONF.scheduler.weight_classes, "probes"], CONF)
    weights = weighing.weigh(columns, Request(spec, {}, tried, AT, CONF), columns.all(), chain).total
    plain = plain_weights(rows, have, goes_on_after_a_failure=max_attempts == 2 and not tried)
    assert dict(zip(columns.names, weights, strict=True)) == pytest.approx(plain)


@settings(max_examples=200)
@given(weights=st.lists(st.sampled_from([0.0, 1.0, 2.0, 2.5, 3.0]), min_size=1, max_size=150), wanted=st.integers(1, 12))
def test_the_best_are_those_of_a_full_sort(weights, wanted):
    import numpy as np

    expected = sorted(range(len(weights)), key=lambda at: (-weights[at], at))[:wanted]
    assert weighing.best(np.array(weights), wanted).tolist() == expected


@pytest.mark.parametrize("values", [2, 5, 300, 1_000_000])
@pytest.mark.parametrize("count", [4096, 4097, 9999])
def test_of_very_many_weights_too_the_best_are_those_of_a_full_sort(count, values):
    import numpy as np

    for seed, wanted in enumerate((1, 3, 10, 50)):
        weights = np.random.default_rng(seed).integers(0, values, count).astype(float)
        expected = np.argsort(-weights, kind="stable")[:wanted].tolist()
        assert weighing.best(weights, wanted).tolist() == expected


@settings(max_examples=200)
@given(weights=st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=150), wanted=st.integers(1, 12), turn=st.floats(0, 1))
def test_a_turn_changes_the_order_of_equals_only(weights, wanted, turn):
    import numpy as np

    count, start = len(weights), int(turn * len(weights)) % len(weights)
    expected = sorted(range(count), key=lambda at: (-weights[at], (at - start) % count))[:wanted]
    assert weighing.best(np.array(weights), wanted, turn).tolist() == expected


@settings(max_examples=150)
@given(before=worlds(), after=worlds(), data=st.data())
def test_columns_changed_step_by_step_are_those_built_anew(before, after, data):
    columns = built(*before)
    first = {row.id: row for row in before[0]}
    second = {row.id: row for row in after[0]}
    gone = [host_id for host_id in first if host_id not in second]
    if gone:
        columns.drop(gone)
    columns.put(data.draw(st.permutations(after[0])))
    empty = dict.fromkeys(CLASSES, (0, 0, 1.0, 0))
    for row in after[0]:
        for resource, numbers in (empty | after[1][row.name]).items():
            columns.set_resource(resource, columns.positions([row.id]), *numbers)

    anew = built(*after)
    places = [columns.position(name) for name in anew.names]
    assert sorted(columns.names) == sorted(anew.names)
    for name in ("ids", "enabled", "forced_down", "last_seen_at", "silent_seconds", "failed_builds", "probed_at", "hypervisor_version"):
        assert getattr(columns, name)[places].tolist() == getattr(anew, name).tolist()
    for word in ("x86_64", "aarch64", "i686"):
        assert columns.cpu_arch.equal(word)[places].tolist() == anew.cpu_arch.equal(word).tolist()
    for word in ("kvm", "qemu", "xen"):
        assert columns.virt_types.having(word)[places].tolist() == anew.virt_types.having(word).tolist()
    for resource in CLASSES:
        assert columns.resource(resource).free[places].tolist() == anew.resource(resource).free.tolist()
        assert columns.resource(resource).fits(2)[places].tolist() == anew.resource(resource).fits(2).tolist()
