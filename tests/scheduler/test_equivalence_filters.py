"""Each filter and weigher that looks at aggregates, groups, hints, counts or extra specs agrees with a plain reading, one host at a time.

The plain reading below is written from the documentation of the rules, not from the filters.
Over 400 lines: one reading and one draw of hosts and requests for all of them, since a request meets all filters at once.
"""

import ipaddress
import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullwright.conf import opts
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts
from hullwright.objects.instances import RequestSpec
from hullwright.objects.server_groups import GroupPlacement, GroupPolicy
from hullwright.scheduler import attributes, filters, plugins, select, weighers, weighing
from hullwright.scheduler.columns import Columns, HostRow
from hullwright.scheduler.image_tally import ImageTally
from hullwright.scheduler.relations import Relations
from hullwright.scheduler.request import Request

NAMES = [f"h{number}" for number in range(6)]
METRICS = {"cpu.percent": -1.0, "cpu.frequency": 0.5}  # [metrics] weight_setting
INSTANCES = [f"00000000-0000-0000-0000-{number:012}" for number in range(4)]
DEEP = "[" * 100_000  # more than a JSON reader likes to go down
UNREADABLE = ["[", '["maybe", 1]', "{}", "7", DEEP, '[["and"], 1]', '[{"a": 1}, 1]', "[null, 1]", ["and", ["=", 1, 1], [[], 1]]]
WIDE = ["in", "$host", *["h1"] * 99]  # more parts than a query may have
PLAIN = {}  # filter -> its plain reading: (host, world, spec, conf) -> whether the host passes
IN_PROPORTION = {"cpu", "ram", "disk", "io_ops"}  # 0 is worth nothing; else the least is
CHAIN = {"destination", "retry", "compute_up", "availability_zone", "capacity", "image_properties"}  # read in `test_equivalence`
AGAINST = {"build_failures"}  # what these count is taken away
PLAIN_WEIGHTS = {}  # weigher -> its plain reading: (host, world) -> number
ATTRIBUTES = sorted(attributes.NAMES)
MULTIPLIERS = ["2", "0.5", "0", "-1", "many", "nan", "inf"]


@dataclass
class PlainHost:
    """A host as the plain reading sees it."""

    id: int
    name: str
    facts: HostFacts
    instances: int
    io_ops: int
    room: dict[str, tuple[int, int, float, int]]  # total, reserved, ratio, used
    failures: tuple[int, bool]  # failed builds, and whether a probe is due
    images: list[dict[str, str]]  # the properties of its instances' images
    aggregates: list[dict[str, str]] = field(default_factory=list)


@dataclass
class World:
    """Hosts, and where other instances are."""

    hosts: list[PlainHost]
    memberships: list[tuple[dict[str, str], set[str]]]
    group: GroupPlacement | None
    host_of: dict[str, int]
    asked: RequestSpec | None = None
    fallen: set[int] = field(default_factory=set)  # ids of hosts that a filter took away

    def passing(self) -> list[PlainHost]:
        return [host for host in self.hosts if host.id not in self.fallen]

    def columns(self) -> Columns:
        columns = Columns([HostRow(host.id, host.name, facts=host.facts, uuid=f"uuid-{host.id}") for host in self.hosts], METRICS)
        columns.image_tally = ImageTally()
        for host in self.hosts:
            at = columns.position(host.name)
            columns.instance_counts[at] = host.instances
            columns.io_ops[at] = host.io_ops
            columns.failed_builds[at], columns.probed_at[at] = host.failures
            for number, properties in enumerate(host.images):
                columns.image_tally.note_choice(f"{host.name}-{number}", host.name, properties)
            for resource, numbers in host.room.items():
                columns.set_resource(resource, np.array([at]), *numbers)
        for number, (metadata, _) in enumerate(self.memberships):
            columns.aggregates.put(number, metadata)
        members = {number: np.flatnonzero(columns.named(names)).tolist() for number, (_, names) in enumerate(self.memberships)}
        columns.aggregates.place(np.arange(len(columns)), members)
        return columns


facts = st.builds(
    HostFacts,
    hostname=st.just("x"),
    hypervisor_type=st.sampled_from(["QEMU", "KVM"]),
    hypervisor_version=st.sampled_from([6_002_000, 7_002_022, 10_000_000]),
    vcpus=st.just(1),
    memory_mb=st.just(1),
    disk_gb=st.just(1),
    disk_free_gb=st.just(1),
    cpu_arch=st.sampled_from(["x86_64", "aarch64"]),
    cpu_model=st.sampled_from(["", "EPYC"]),
    cpu_features=st.sampled_from([(), ("aes",), ("aes", "avx2")]),
    virt_types=st.sampled_from([("qemu",), ("kvm", "qemu")]),
    guest_cpu_features=st.sampled_from([None, (), ("avx2",)]),
    cached_images=st.sampled_from([(), ("secret",), ("open", "secret")]),
    metrics=st.dictionaries(st.sampled_from([*METRICS, "cpu.user.time"]), st.integers(0, 100)),
    host_ip=st.sampled_from(["10.0.0.1", "10.0.1.77", "192.0.2.5", "::1"]),
)
metadata = st.dictionaries(
    st.sampled_from(
        [
            "ssd",
            "filter_tenant_id",
            "filter_tenant_id2",
            "os_type",
            "ns.os_type",
            "ns_os_type",
            "instance_type",
            "max_io_ops_per_host",
            "max_instances_per_host",
            "trait:CUSTOM_GOLD",
        ]
    ),
    st.sampled_from(
        [
            "required",
            "true",
            "p",
            "q, p",
            "linux",
            "linux,windows",
            "small",
            "large, small",
            "2",
            "5",
            "0.5",
            "0",
            "-1",
            "many",
            "nan",
            "inf",
        ]
    ),
    max_size=4,
)
counts = st.integers(0, 60)
failures = st.sampled_from([(0, False), (0, False), (1, False), (3, False), (2, True)])
images = st.sampled_from([[], [{"os_type": "linux"}], [{"os_type": "bsd", "hw_disk_bus": "ide"}, {"note": "x"}], [{"os_type": "bsd"}] * 2])
room = st.fixed_dictionaries(
    {
        name: st.tuples(st.integers(0, 20), st.integers(0, 2), st.sampled_from([1.0, 1.5]), st.integers(0, 9))
        for name in ("VCPU", "MEMORY_MB", "DISK_GB")
    }
)


@st.composite
def worlds(draw):
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    hosts = [
        PlainHost(number * 2, name, draw(facts), draw(counts), draw(st.integers(0, 10)), draw(room), draw(failures), draw(images))
        for number, name in enumerate(names, 1)
    ]
    memberships = [(draw(metadata), set(draw(st.lists(st.sampled_from(names), unique=True)))) for _ in range(draw(st.integers(0, 3)))]
    for given_metadata, members in memberships:
        for host in hosts:
            if host.name in members:
                host.aggregates.append(given_metadata)
    ids = st.sampled_from([host.id for host in hosts] + [99])
    group = draw(
        st.none()
        | st.builds(
            GroupPlacement,
            uuid=st.just("g"),
            policy=st.sampled_from(GroupPolicy),
            max_server_per_host=st.integers(1, 3),
            members_on=st.dictionaries(ids, st.integers(1, 3), max_size=3),
        )
    )
    return World(hosts, memberships, group, draw(st.dictionaries(st.sampled_from(INSTANCES), ids)))


extra_specs = st.dictionaries(
    st.sampled_from(
        [
            "ssd",
            "aggregate_instance_extra_specs:ssd",
            "aggregate_instance_extra_specs:os_type",
            *(f"capabilities:{name}" for name in ATTRIBUTES),
            "capabilities:nothing",
            "hypervisor_version",
            "vcpus_used",
            "hw:cpu_policy",
            "trait:HW_CPU_X86_AVX2",
            "trait1:HW_CPU_X86_AESNI",
            "trait_group:CUSTOM_GOLD",
        ]
    ),
    st.sampled_from(["required", "forbidden"])
    | st.sampled_from(["s> QEMU", "s>= QEMU", "s<= QEMU", "s> h1", "s<= 10.0.0.1", "s>=", "== 1.5", "1.5", "EPYC", "h2", "uuid-2"])
    | st.sampled_from(["true", "QEMU", "s== QEMU", "s!= QEMU", "s< b", ">= 4", "<= 7", "== 4", "!= 4", "= 3", ">= x", "<in> avx", ""])
    | st.sampled_from(["<all-in> aes avx2", "<or> linux <or> windows", "<or> 2 <or> true", "x86_64", "7002022"]),
    max_size=3,
)
comparison = st.tuples(
    st.sampled_from(["=", "<", ">", "<=", ">=", "in"]),
    st.sampled_from(["$free_ram_mb", "$vcpus_used", "$host", "$nothing", "$hypervisor_type", "$num_instances", "$cpu_info.arch"]),
    st.sampled_from([0, 3, 8, "h1", "QEMU", "x86_64", "$vcpus_total"]),
).map(list)
queries = st.recursive(
    comparison,
    lambda inner: st.tuples(st.sampled_from(["and", "or", "not"]), inner, inner).map(list) | st.tuples(st.just("not"), inner).map(list),
    max_leaves=4,
)
one_or_more = st.sampled_from([*INSTANCES, "not-a-uuid"]) | st.lists(st.sampled_from(INSTANCES), max_size=3)
hints = st.fixed_dictionaries(
    {},
    optional={
        "same_host": one_or_more,
        "different_host": one_or_more,
        "query": queries.map(json.dumps) | queries | st.sampled_from(UNREADABLE) | st.sampled_from([WIDE, json.dumps(WIDE), ["or", WIDE]]),
        "build_near_host_ip": st.sampled_from(["10.0.0.200", "192.0.2.1", "::2"]),
        "cidr": st.sampled_from(["/24", "/16", "/32", "/0", "/200"]),
    },
)
specs = st.builds(
    RequestSpec,
    instance_uuid=st.just("i"),
    project_id=st.sampled_from(["p", "q", "r"]),
    user_id=st.just("u"),
    flavor=st.builds(
        Flavor,
        id=st.just("1"),
        name=st.sampled_from(["small", "large", "huge"]),
        vcpus=st.just(1),
        memory_mb=st.just(1),
        root_gb=st.just(1),
        extra_specs=extra_specs,
    ),
    image_id=st.sampled_from([None, "secret", "open"]),
    image_properties=st.dictionaries(
        st.sampled_from(["os_type", "ns.os_type", "ns_os_type", "hw_disk_bus", "note", "trait:CUSTOM_GOLD"]),
        st.sampled_from(["linux", "bsd", "ide", "x", "required", "forbidden"]),
    ),
    scheduler_hints=hints,
    max_attempts=st.integers(1, 2),
)
options = st.fixed_dictionaries(
    {},
    optional={
        "isolated_images": st.just(["secret"]),
        "isolated_hosts": st.just(["h1", "h2", "h9"]),
        "restrict_isolated_hosts_to_isolated_images": st.booleans(),
        "max_io_ops_per_host": st.integers(0, 9),
        "aggregate_image_properties_isolation_namespace": st.just("ns"),
        "aggregate_image_properties_isolation_separator": st.sampled_from([".", "_"]),
    },
)


# --- The plain reading of filters -----------------------------------------------------------------------------------------


def plain(function):
    PLAIN[function.__name__] = function
    return function


def words_of(host, key):
    """All words that a host's aggregates have for a key."""
    return [word.strip() for each in host.aggregates if key in each for word in each[key].split(",")]


def meets(value, wanted):
    """extra_specs as its documentation has it."""
    parts = wanted.split()
    sign = parts[0] if parts else ""
    if sign == "<or>":
        return value in [part for number, part in enumerate(parts) if number % 2 == 1]
    known = ("<in>", "<all-in>", "s==", "s!=", "s<", "s<=", "s>", "s>=", "=", "==", "!=", ">=", "<=")
    if sign not in known:
        return value == wanted
    if len(parts) == 1:
        return False
    if sign == "<in>":
        return parts[1] in value
    if sign == "<all-in>":
        return all(part in value for part in parts[1:])
    left, right, sign = (value, parts[1], sign[1:]) if sign.startswith("s") else (value, parts[1], sign)
    if not parts[0].startswith("s"):
        try:
            left, right = float(value), float(parts[1])
        except ValueError:
            return False
        sign = ">=" if sign == "=" else sign
    if sign == "==":
        return left == right
    if sign == "!=":
        return left != right
    if sign in (">", ">="):
        return left > right or (sign == ">=" and left == right)
    return left < right or (sign == "<=" and left == right)


def attribute(host, name):
    def usable(resource):
        return host.room[resource][0] - host.room[resource][1]

    found = {
        "host": host.name,
        "nodename": host.name,
        "hypervisor_hostname": host.name,
        "uuid": f"uuid-{host.id}",
        "host_ip": host.facts.host_ip,
        "hypervisor_type": host.facts.hypervisor_type,
        "hypervisor_version": host.facts.hypervisor_version,
        "free_ram_mb": usable("MEMORY_MB") - host.room["MEMORY_MB"][3],
        "total_usable_ram_mb": usable("MEMORY_MB"),
        "free_disk_mb": (usable("DISK_GB") - host.room["DISK_GB"][3]) * 1024,
        "total_usable_disk_gb": usable("DISK_GB"),
        "disk_mb_used": host.room["DISK_GB"][3] * 1024,
        "vcpus_used": host.room["VCPU"][3],
        "vcpus_total": usable("VCPU"),
        "cpu_allocation_ratio": host.room["VCPU"][2],
        "ram_allocation_ratio": host.room["MEMORY_MB"][2],
        "disk_allocation_ratio": host.room["DISK_GB"][2],
        "num_instances": host.instances,
        "num_io_ops": host.io_ops,
        "failed_builds": host.failures[0],
        "cpu_info:arch": host.facts.cpu_arch,
        "cpu_info:model": host.facts.cpu_model,
        "cpu_info:features": " ".join(host.facts.cpu_features),
    }
    assert set(found) == set(ATTRIBUTES)
    return found.get(name)


def answer(query, host):
    """A JSON query for one host. Raises ValueError when it cannot be read."""
    if not isinstance(query, list) or not query:
        raise ValueError
    values = []
    for each in query[1:]:
        if isinstance(each, list):
            values.append(answer(each, host))
        elif isinstance(each, str) and each.startswith("$"):
            if (value := attribute(host, each[1:].replace(".", ":"))) is not None:
                values.append(value)
        else:
            values.append(each)
    match query[0]:
        case "and":
            return all(values)
        case "or":
            return any(values)
        case "not":
            return any(not value for value in values)
        case "in":
            return len(values) > 1 and values[0] in values[1:]
        case "=":
            return len(values) > 1 and all(values[0] == value for value in values[1:])
        case "<" | ">" | "<=" | ">=":
            if len(values) < 2:
                return False
            try:
                test = {"<": lambda v: values[0] < v, ">": lambda v: values[0] > v, "<=": lambda v: values[0] <= v}
                return all(test.get(query[0], lambda v: values[0] >= v)(value) for value in values[1:])
            except TypeError:
                return False
    raise ValueError


def least(host, key, number, otherwise):
    try:
        numbers = [number(each[key]) for each in host.aggregates if key in each]
    except ValueError:
        return otherwise
    return min(numbers, default=otherwise) if all(abs(each) < 10**9 for each in numbers) else otherwise


def named_by(spec, hint):
    given_value = spec.scheduler_hints.get(hint) or []
    return [given_value] if isinstance(given_value, str) else given_value


@plain
def all_hosts(host, world, spec, conf):
    return True


@plain
def compute_capabilities(host, world, spec, conf):
    for key, wanted in spec.flavor.extra_specs.items():
        name = key.removeprefix("capabilities:") if key.startswith("capabilities:") else key
        if name == key and key not in ATTRIBUTES:
            continue
        value = attribute(host, name)
        if value is None or not meets(str(value), wanted):
            return False
    return True


@plain
def traits(host, world, spec, conf):
    of_host = {key.removeprefix("trait:") for each in host.aggregates for key, value in each.items() if value == "required"}
    if "kvm" in host.facts.virt_types:
        seen = host.facts.cpu_features if host.facts.guest_cpu_features is None else host.facts.guest_cpu_features
        of_host |= {{"aes": "HW_CPU_X86_AESNI", "avx2": "HW_CPU_X86_AVX2"}[flag] for flag in seen}
    for key, wanted in [*spec.flavor.extra_specs.items(), *spec.image_properties.items()]:
        name = key.partition(":")[2]
        if key.startswith("trait") and wanted in ("required", "forbidden") and (name in of_host) != (wanted == "required"):
            return False
    return True


@plain
def aggregate_instance_extra_specs(host, world, spec, conf):
    for key, wanted in spec.flavor.extra_specs.items():
        name = key.removeprefix("aggregate_instance_extra_specs:")
        if ":" not in name and not any(meets(word, wanted) for word in words_of(host, name)):
            return False
    return True


@plain
def aggregate_multi_tenancy_isolation(host, world, spec, conf):
    allowed = words_of(host, "filter_tenant_id") + words_of(host, "filter_tenant_id2")
    return not allowed or spec.project_id in allowed


@plain
def aggregate_image_properties_isolation(host, world, spec, conf):
    namespace = conf.scheduler.aggregate_image_properties_isolation_namespace
    separator = conf.scheduler.aggregate_image_properties_isolation_separator
    for key, value in spec.image_properties.items():
        if namespace and not key.startswith(f"{namespace}{separator}"):
            continue
        wanted = words_of(host, key)
        if wanted and value not in wanted:
            return False
    return True


@plain
def aggregate_type_affinity(host, world, spec, conf):
    names = words_of(host, "instance_type")
    return not names or spec.flavor.name in names


@plain
def isolated_hosts(host, world, spec, conf):
    host_isolated = host.name in conf.scheduler.isolated_hosts
    image_isolated = spec.image_id in conf.scheduler.isolated_images
    if conf.scheduler.restrict_isolated_hosts_to_isolated_images:
        return host_isolated == image_isolated
    return host_isolated or not image_isolated


@plain
def io_ops(host, world, spec, conf):
    return host.io_ops < conf.scheduler.max_io_ops_per_host


@plain
def aggregate_io_ops(host, world, spec, conf):
    return host.io_ops < least(host, "max_io_ops_per_host", int, conf.scheduler.max_io_ops_per_host)


@plain
def num_instances(host, world, spec, conf):
    return host.instances < conf.scheduler.max_instances_per_host


@plain
def aggregate_num_instances(host, world, spec, conf):
    return host.instances < least(host, "max_instances_per_host", int, conf.scheduler.max_instances_per_host)


@plain
def metrics(host, world, spec, conf):
    return set(METRICS) <= set(host.facts.metrics)


@plain
def different_host(host, world, spec, conf):
    return all(world.host_of.get(uuid) != host.id for uuid in named_by(spec, "different_host"))


@plain
def same_host(host, world, spec, conf):
    named = named_by(spec, "same_host")
    return not named or any(world.host_of.get(uuid) == host.id for uuid in named)


@plain
def simple_cidr_affinity(host, world, spec, conf):
    near = spec.scheduler_hints.get("build_near_host_ip")
    if near is None:
        return True
    try:
        network = ipaddress.ip_network(near + spec.scheduler_hints.get("cidr", "/24"), strict=False)
    except ValueError:
        return False
    return ipaddress.ip_address(host.facts.host_ip) in network


@plain
def json_query(host, world, spec, conf):
    query = spec.scheduler_hints.get("query")
    try:
        query = json.loads(query) if isinstance(query, str) else query
        if json.dumps(query).count(",") >= 100:
            return False
        return not query or bool(answer(query, host))
    except (ValueError, RecursionError):
        return False


@plain
def server_group_affinity(host, world, spec, conf):
    group = world.group
    return group is None or group.policy != "affinity" or not group.members_on or host.id in group.members_on


@plain
def server_group_anti_affinity(host, world, spec, conf):
    group = world.group
    return group is None or group.policy != "anti-affinity" or group.members_on.get(host.id, 0) < group.max_server_per_host


# --- The plain reading of weighers ----------------------------------------------------------------------------------------

PLAIN_WEIGHTS = {
    "io_ops": lambda host, world: host.io_ops,
    "num_instances": lambda host, world: host.instances,
    "hypervisor_version": lambda host, world: host.facts.hypervisor_version,
    "soft_affinity": lambda host, world: members_there(host, world, "soft-affinity"),
    "soft_anti_affinity": lambda host, world: -members_there(host, world, "soft-anti-affinity"),
    "image_cached": lambda host, world: int(world.asked.image_id in host.facts.cached_images),
    "metrics": lambda host, world: metrics_of(host, min((metrics_of(each) for each in world.passing() if tells_all(each)), default=0.0)),
    "build_failures": lambda host, world: 0 if may_probe(host, world) else host.failures[0],
    "probes": lambda host, world: int(may_probe(host, world)),
    "image_properties": lambda host, world: sum(
        there.get(name) == value
        for name, value in world.asked.image_properties.items()
        if name.startswith(("hw_", "img_", "os_"))
        for there in host.images
    ),
    "cpu": lambda host, world: free(host, "VCPU"),
    "ram": lambda host, world: free(host, "MEMORY_MB"),
    "disk": lambda host, world: free(host, "DISK_GB"),
}


def free(host, resource):
    total, reserved, ratio, used = host.room[resource]
    return (total - reserved) * ratio - used


def may_probe(host, world):
    return host.failures[1] and world.asked.max_attempts > 1


def members_there(host, world, policy):
    return world.group.members_on.get(host.id, 0) if world.group and world.group.policy == policy else 0


def tells_all(host):
    return set(METRICS) <= set(host.facts.metrics)


def metrics_of(host, otherwise=None):
    return host.facts.metrics["cpu.frequency"] * 0.5 - host.facts.metrics["cpu.percent"] if tells_all(host) else otherwise


# --- The comparison -------------------------------------------------------------------------------------------------------


def loaded(chosen):
    conf = opts.load([], {"metrics": {"weight_setting": METRICS}})
    for name, value in chosen.items():
        conf.set_override(name, value, "scheduler")
    return conf


SIGNS = ["", "=", "==", "!=", ">=", "<=", "s==", "s!=", "s<", "s<=", "s>", "s>=", "<in>", "<all-in>", "<or>"]


@settings(max_examples=30)
@given(world=worlds())
def test_each_attribute_meets_each_operator_as_their_plain_reading_has_it(world):
    columns = world.columns()
    for name in ATTRIBUTES:
        values = [attribute(host, name) for host in world.hosts]
        assert attributes.read(columns, name).tolist() == values
        for wanted in [f"{sign} {word}".strip() for sign in SIGNS for word in {"", "4", "M", *map(str, values)}]:
            expected = [meets(str(value), wanted) for value in values]
            assert attributes.meeting(columns, name, wanted).tolist() == expected, (name, wanted)


def test_every_filter_and_every_weigher_has_a_plain_reading():
    assert set(PLAIN) | CHAIN == set(plugins.names_of("filters"))
    assert set(PLAIN_WEIGHTS) == set(plugins.names_of("weighers"))


@pytest.mark.parametrize("name", sorted(PLAIN))
@settings(max_examples=200)
@given(world=worlds(), spec=specs, chosen=options)
def test_a_filter_passes_the_hosts_of_its_plain_reading(name, world, spec, chosen):
    conf = loaded(chosen)
    request = Request(spec, spec.resources(), {}, 0.0, conf, Relations(world.group, world.host_of))
    outcome = select.apply_filters(world.columns(), request, filters.load([name]))
    expected = {host.name: bool(PLAIN[name](host, world, spec, conf)) for host in world.hosts}
    assert dict(zip([host.name for host in world.hosts], outcome.passing.tolist(), strict=True)) == expected
    assert sum(rejection.count for rejection in outcome.rejections) == sum(not passes for passes in expected.values())


@settings(max_examples=150)
@given(world=worlds(), spec=specs, chosen=options)
def test_all_filters_together_pass_what_each_of_them_passes(world, spec, chosen):
    conf = loaded(chosen)
    request = Request(spec, spec.resources(), {}, 0.0, conf, Relations(world.group, world.host_of))
    outcome = select.apply_filters(world.columns(), request, filters.load(sorted(PLAIN)))
    expected = [all(check(host, world, spec, conf) for check in PLAIN.values()) for host in world.hosts]
    assert outcome.passing.tolist() == expected


@pytest.mark.parametrize("name", sorted(PLAIN_WEIGHTS))
@settings(max_examples=150)
@given(
    world=worlds(),
    spec=specs,
    multiplier=st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
    said=st.lists(st.none() | st.sampled_from(MULTIPLIERS), min_size=3, max_size=3),
    fallen=st.sets(st.sampled_from([2, 4, 6]), max_size=2),
)
def test_a_weigher_weighs_as_its_plain_reading_with_multipliers_of_aggregates(name, world, spec, multiplier, said, fallen):
    [weigher] = weighers.load([name], loaded({}))
    for (of_aggregate, _), value in zip(world.memberships, said, strict=False):
        if value is not None and weigher.option is not None:
            of_aggregate[weigher.option] = value
    request = Request(spec, {}, {}, 0.0, loaded({}), Relations(world.group, world.host_of))
    columns, world.asked, world.fallen = world.columns(), spec, fallen
    weights = weighing.weigh(columns, request, ~columns.with_ids(fallen), [replace(weigher, multiplier=multiplier)]).total
    values = [PLAIN_WEIGHTS[name](host, world) for host in world.passing()]
    low, high = min(values, default=0), max(values, default=0)
    if name in IN_PROPORTION:
        values, low = [max(0, value) for value in values], 0
    expected = []
    for host, value in zip(world.passing(), values, strict=True):
        counts_here = least(host, weigher.option, float, multiplier) * (-1 if name in AGAINST else 1)
        expected.append(counts_here * (value - low) / (high - low) if high > low else 0.0)
    # What is the same for all may be left out.
    assert np.diff(weights).tolist() == pytest.approx(np.diff(expected).tolist())
    if name not in IN_PROPORTION:
        assert weights.tolist() == pytest.approx(expected)


@settings(max_examples=100)
@given(before=worlds(), after=worlds())
def test_memberships_and_images_follow_hosts_that_come_and_go(before, after):
    columns = before.columns()
    images = {host.name: host.facts.cached_images for host in before.hosts}
    told = {host.id: host.facts.metrics for host in before.hosts}
    members = {number: names for number, (_, names) in enumerate(before.memberships)}
    stay = {host.id for host in after.hosts} & {host.id for host in before.hosts}
    name_of = {host.id: host.name for host in before.hosts}
    columns.drop([host.id for host in before.hosts if host.id not in stay])
    columns.put([HostRow(host.id, host.name) for host in after.hosts if host.id not in stay])
    for name in METRICS:
        expected = [told[id].get(name) if id in stay else None for id in columns.ids.tolist()]
        assert [None if np.isnan(value) else value for value in columns.metrics.of(name)] == expected
    for number, names in members.items():
        found = {int(columns.ids[at]) for at in np.flatnonzero(columns.aggregates.by_id[number].members)}
        assert found == {host_id for host_id in stay if name_of[host_id] in names}
    holders = {(image, host_id) for host_id in stay for image in images[name_of[host_id]]}
    assert {(image, host_id) for image, ids in columns.image_holders.items() for host_id in ids} == holders
