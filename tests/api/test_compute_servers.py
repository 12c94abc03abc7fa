"""GET, PUT and DELETE of servers: fields by version, lists and their filters, deletes that meet each other.

Over 400 lines: the other half of what `test_compute_create` begins, on the same few servers.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import sqlalchemy as sa

from hullwright.conductor.client import Asker
from hullwright.objects.instances import Fault
from hullwright.objects.networks import NetworkRequest
from hullwright.objects.volumes import BlockDeviceRequest, Volume
from hullwright.persistence import aggregates, faults, hosts, instances, jobs, leases, patterns, ports, volumes
from hullwright.persistence.database import now
from hullwright.persistence.models.instances import instance_actions
from hullwright.persistence.models.instances import instances as instance_table
from hullwright.persistence.models.jobs import jobs as job_table
from support.effort import count_calls, scans

from .conftest import Api, World, activate, create, server_body, set_columns

_CALLS_FOR_A_SHOWN_SERVER = 150  # about 80 are made

ATTR = "OS-EXT-SRV-ATTR:"
SINCE_2_1 = {
    "id", "name", "status", "tenant_id", "user_id", "hostId", "created", "updated", "links", "metadata", "accessIPv4",
    "accessIPv6", "addresses", "flavor", "image", "key_name", "config_drive", "OS-DCF:diskConfig",
    "OS-EXT-AZ:availability_zone", "OS-EXT-STS:task_state", "OS-EXT-STS:vm_state", "OS-EXT-STS:power_state",
    "OS-SRV-USG:launched_at", "OS-SRV-USG:terminated_at", "os-extended-volumes:volumes_attached", "progress",
    ATTR + "host", ATTR + "hypervisor_hostname", ATTR + "instance_name",
}  # fmt: skip
ADDED = {
    3: {ATTR + name for name in ("hostname", "kernel_id", "ramdisk_id", "launch_index", "reservation_id", "root_device_name", "user_data")},
    9: {"locked"},
    16: {"host_status"},
    19: {"description"},
    26: {"tags"},
    63: {"trusted_image_certificates"},
    71: {"server_groups"},
    73: {"locked_reason"},
    96: {"pinned_availability_zone"},
    100: {"scheduler_hints"},
}


@pytest.mark.parametrize("minor", [1, 2, 3, 8, 9, 15, 16, 18, 19, 25, 26, 46, 47, 62, 63, 70, 71, 72, 73, 95, 96, 97, 98, 99, 100])
def test_a_server_has_the_fields_of_its_version_and_no_others(sqlite_api: Api, small_world: World, minor: int) -> None:
    uuid = create(sqlite_api, small_world)
    expected = SINCE_2_1.union(*(fields for since, fields in ADDED.items() if since <= minor))
    server = sqlite_api.get(f"/servers/{uuid}", version=f"2.{minor}").json["server"]
    assert set(server) == expected
    assert set(server["flavor"]) == (
        {"id", "links"} if minor < 47 else {"vcpus", "ram", "disk", "ephemeral", "swap", "original_name", "extra_specs"}
    )
    assert ("properties" in server["image"]) == (minor >= 98)
    [listed] = sqlite_api.get("/servers/detail", version=f"2.{minor}").json["servers"]
    assert set(listed) == expected - {"server_groups"}


def give_parts(api: Api, world: World, uuid: str) -> str:
    """A port with an address and a volume, as the build's steps would; answers the volume's id."""
    volume_id = str(uuid4())
    with api.db.write() as conn:
        ports.ensure(conn, uuid, "hullwright", [NetworkRequest(str(uuid4()), world.network, fixed_ip="192.0.2.33")])
        volumes.create(conn, Volume(volume_id, "v", 1, project_id="hullwright", created_at=now()))
        device = BlockDeviceRequest(str(uuid4()), volume_id, size_gb=1, delete_on_termination=True)
        volumes.reserve(conn, uuid, "hullwright", "hullwright", [device])
    return volume_id


def test_an_active_server_tells_its_host_addresses_and_volumes(api: Api, world: World) -> None:
    uuid = create(api, world)
    volume_id = give_parts(api, world, uuid)
    activate(api, uuid)
    server = api.get(f"/servers/{uuid}").json["server"]
    assert (server["status"], server["progress"], server[ATTR + "host"]) == ("ACTIVE", 100, "host1")
    [address] = server["addresses"]["net1"]
    assert (address["addr"], address["version"], address["OS-EXT-IPS:type"]) == ("192.0.2.33", 4, "fixed")
    assert address["OS-EXT-IPS-MAC:mac_addr"].startswith("fa:16:3e:")
    assert server["os-extended-volumes:volumes_attached"] == [{"id": volume_id, "delete_on_termination": True}]
    assert server["security_groups"] == [{"name": "default"}]
    assert (server["OS-EXT-AZ:availability_zone"], len(server["hostId"])) == ("nova", 56)
    assert api.get(f"/servers/{uuid}/ips").json == {"addresses": {"net1": [{"version": 4, "addr": "192.0.2.33"}]}}
    assert api.get(f"/servers/{uuid}/ips/net1").json == {"net1": [{"version": 4, "addr": "192.0.2.33"}]}
    assert api.get(f"/servers/{uuid}/ips/nope").status == 404
    [card] = api.get(f"/servers/{uuid}/os-interface").json["interfaceAttachments"]
    assert (card["net_id"], card["port_state"], card["fixed_ips"][0]["ip_address"]) == (world.network, "DOWN", "192.0.2.33")
    assert api.get(f"/servers/{uuid}/os-interface/{card['port_id']}").json["interfaceAttachment"] == card
    [volume] = api.get(f"/servers/{uuid}/os-volume_attachments").json["volumeAttachments"]
    assert (volume["volumeId"], volume["serverId"], volume["delete_on_termination"]) == (volume_id, uuid, True)
    old = api.get(f"/servers/{uuid}/os-volume_attachments/{volume_id}", version="2.1").json["volumeAttachment"]
    assert old == {"id": volume_id, "volumeId": volume_id, "serverId": uuid, "device": None}
    assert "attach, detach" in api.post(f"/servers/{uuid}/os-volume_attachments", {}).fault[1]


def test_host_status_follows_the_host(sqlite_api: Api, small_world: World) -> None:
    uuid = create(sqlite_api, small_world)

    def told() -> Any:
        return sqlite_api.get(f"/servers/{uuid}").json["server"]["host_status"]

    assert told() == ""
    activate(sqlite_api, uuid)
    assert told() == "DOWN"  # it never answered
    with sqlite_api.db.write() as conn:
        from hullwright.persistence.models.hosts import hosts as host_table

        conn.execute(sa.update(host_table).values(last_seen_at=now()))
    assert told() == "UP"
    with sqlite_api.db.write() as conn:
        hosts.disable(conn, "host1", "mending")
    assert told() == "MAINTENANCE"
    with sqlite_api.db.write() as conn:
        hosts.force_down(conn, "host1", True)
    assert told() == "DOWN"
    set_columns(sqlite_api, uuid, host="gone")
    assert told() == "UNKNOWN"


def test_the_zone_filter_goes_by_the_zone_that_is_shown(api: Api, world: World) -> None:
    def listed(zone: str) -> list[str]:
        return [server["id"] for server in api.get("/servers", params={"availability_zone": zone}).json["servers"]]

    def shown(uuid: str) -> str:
        return str(api.get(f"/servers/{uuid}").json["server"]["OS-EXT-AZ:availability_zone"])

    asked, unasked = create(api, world, availability_zone="nova"), create(api, world)
    assert (shown(asked), shown(unasked), listed("nova"), listed("west")) == ("nova", "", [asked], [])
    activate(api, unasked)
    assert (shown(unasked), listed("nova"), listed("west")) == ("nova", [unasked, asked], [])
    with api.db.write() as conn:
        aggregates.set_home_zone(conn, "host1", "west")
    assert (shown(unasked), listed("nova"), listed("west")) == ("west", [asked], [unasked])
    with api.db.write() as conn:
        aggregates.set_home_zone(conn, "host1", "nova")
    activate(api, asked)
    assert (shown(asked), shown(unasked), listed("nova"), listed("west")) == ("nova", "nova", [unasked, asked], [])


def test_progress_is_that_of_the_build(sqlite_api: Api, small_world: World) -> None:
    uuid = create(sqlite_api, small_world)
    with sqlite_api.db.write() as conn:
        conn.execute(sa.update(job_table).values(progress=40))
    assert sqlite_api.get(f"/servers/{uuid}").json["server"]["progress"] == 40
    set_columns(sqlite_api, uuid, vm_state="stopped", task_state=None)
    assert "progress" not in sqlite_api.get(f"/servers/{uuid}").json["server"]


def test_a_fault_is_shown_in_error_only_and_only_the_latest(api: Api, world: World) -> None:
    uuid = create(api, world)
    with api.db.write() as conn:
        faults.record(conn, Fault(uuid, 500, "first", "on host1", created_at=now()))
        faults.record(conn, Fault(uuid, 500, "second", "on host2"))
    assert "fault" not in api.get(f"/servers/{uuid}").json["server"]
    set_columns(api, uuid, vm_state="error", task_state=None)
    server = api.get(f"/servers/{uuid}").json["server"]
    assert server["status"] == "ERROR"
    assert (server["fault"]["code"], server["fault"]["message"], server["fault"]["details"]) == (500, "second", "on host2")
    [listed] = api.get("/servers/detail?status=error").json["servers"]
    assert listed["fault"] == server["fault"]


def test_a_server_is_changed_without_its_guest(api: Api, world: World) -> None:
    uuid = create(api, world)
    changes = {
        "name": "new",
        "description": None,
        "accessIPv4": "192.0.2.9",
        "accessIPv6": "2001:0db8:0000:0000:0000:0000:192.0.2.33",
        "hostname": "box",
    }
    answer = api.put(f"/servers/{uuid}", {"server": changes})
    server = answer.json["server"]
    assert (server["name"], server["description"], server["accessIPv4"]) == ("new", None, "192.0.2.9")
    assert (server[ATTR + "hostname"], server["accessIPv6"]) == ("box", "2001:db8::c000:221")
    assert api.put(f"/servers/{uuid}", {"server": {"description": "x"}}, version="2.18").status == 400
    assert api.put(f"/servers/{uuid}", {"server": {"status": "ACTIVE"}}).status == 400
    assert api.put(f"/servers/{uuid4()}", {"server": {"name": "x"}}).status == 404


# --- Lists ------------------------------------------------------------------------------------------------------------


def names(api: Api, query: str, version: str | None = None) -> list[str]:
    answer = api.get(f"/servers{query}", version=version)
    assert answer.status == 200, answer.text
    return [server["name"] for server in answer.json["servers"]]


@pytest.fixture
def five(api: Api, world: World) -> list[str]:
    """Servers a to e, made in that order; c is active with an address and tags, d is in error."""
    uuids = [create(api, world, name=name, metadata={"n": name}, tags=[name, "all"]) for name in "abcde"]
    for index, uuid in enumerate(uuids):
        set_columns(api, uuid, created_at=1000.0 + index)
    give_parts(api, world, uuids[2])
    activate(api, uuids[2])
    set_columns(api, uuids[3], vm_state="error", task_state=None)
    return uuids


def test_lists_are_newest_first_in_pages_that_lead_to_each_other(api: Api, five: list[str]) -> None:
    assert names(api, "") == list("edcba")
    answer = api.get("/servers?limit=2")
    [link] = answer.json["servers_links"]
    assert [server["name"] for server in answer.json["servers"]] == ["e", "d"]
    path = link["href"].split("/v2.1", 1)[1]
    answer = api.get(path)
    assert [server["name"] for server in answer.json["servers"]] == ["c", "b"]
    answer = api.get(answer.json["servers_links"][0]["href"].split("/v2.1", 1)[1])
    assert [server["name"] for server in answer.json["servers"]] == ["a"]
    assert "servers_links" not in answer.json
    assert names(api, f"?marker={five[0]}") == []
    assert api.get("/servers?marker=nope").fault == ("badRequest", "marker [nope] not found")
    for bad in ("-1", "x", "", "9" * 30):
        assert api.get(f"/servers?limit={bad}").status == 400


def test_lists_are_sorted_as_asked(api: Api, five: list[str]) -> None:
    assert names(api, "?sort_key=display_name&sort_dir=asc") == list("abcde")
    assert names(api, "?sort_key=vm_state&sort_dir=asc&sort_key=display_name&sort_dir=desc") == list("cebad")
    assert names(api, f"?sort_key=task_state&sort_dir=asc&sort_key=display_name&sort_dir=asc&marker={five[3]}") == list("abe")
    assert names(api, "?sort_dir=asc") == list("abcde")
    assert api.get("/servers?sort_key=secret").status == 400
    assert api.get("/servers?sort_key=uuid&sort_dir=up").status == 400


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?status=ACTIVE", "c"),
        ("?status=build", "eba"),
        ("?status=ERROR&status=ACTIVE", "dc"),
        ("?status=NONSENSE", ""),
        ("?vm_state=error", "d"),
        ("?task_state=scheduling", "eba"),
        ("?name=b", "b"),
        ("?name=" + quote("^[ab]$"), "ba"),
        ("?name=B", ""),
        ("?name=" + quote("a|c"), "ca"),
        ("?ip=192.0.2.33", "c"),
        ("?ip=" + quote("^192.0.2.3"), "c"),
        ("?ip6=192", ""),
        ("?flavor=1", "edcba"),
        ("?flavor=2", ""),
        ("?host=host1", "c"),
        ("?tags=all,b", "b"),
        ("?tags-any=a,b", "ba"),
        ("?not-tags=all,b", "edca"),
        ("?not-tags-any=a,b", "edc"),
        ("?tags=al", ""),
        ("?locked=True", ""),
        ("?power_state=1", "c"),
        ("?config_drive=true", "edcba"),
        ("?config_drive=false", ""),
        ("?metadata=" + quote('{"n": "e"}'), "e"),
        ("?hostname=d", "d"),
        ("?all_tenants=1", "edcba"),
        ("?all_tenants", "edcba"),
        ("?tenant_id=somebody", ""),
        ("?all_tenants=1&project_id=somebody", ""),
        ("?deleted=true", ""),
        ("?user_id=hullwright", "edcba"),
        ("?changes-since=1970-01-01T00:00:00Z", "edcba"),
        ("?changes-before=1970-01-01T00:00:00Z", ""),
        ("?changes-since=2999-01-01T00:00:00", ""),
    ],
)
def test_filters_choose(api: Api, five: list[str], query: str, expected: str) -> None:
    assert names(api, query) == list(expected)


@pytest.mark.parametrize(
    "query",
    [
        "?name=" + quote("["),
        "?name=" + "x" * 300,
        "?changes-since=yesterday",
        "?changes-since=2999-01-01T00:00:00Z&changes-before=2000-01-01T00:00:00Z",
        "?all_tenants=perhaps",
        "?power_state=on",
        "?uuid=x",
        "?locked=",
    ],
)
def test_filters_that_make_no_sense_are_400(sqlite_api: Api, query: str) -> None:
    assert sqlite_api.get(f"/servers{query}").status == 400


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(a*)*b", r"^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_pattern_that_backtracking_would_never_end_is_answered(api: Api, world: World, pattern: str) -> None:
    uuid = create(api, world, name="a" * 60 + "!")
    with within_a_minute():
        answers = [api.get(f"/servers?{name}={quote(pattern)}") for name in ("name", "description", "hostname")]
    assert {answer.status for answer in answers} == {200}
    assert [answer.json["servers"] for answer in answers[:2]] == [[], []]
    assert names(api, f"?name={quote('(a+)+!$')}") == ["a" * 60 + "!"], uuid


@pytest.mark.parametrize("pattern", [r"(a+)\1", "(?=a)b", "(?<!a)b", "(a{1,255}){1,255}", "[", "a" * 256])
def test_a_pattern_without_a_bound_or_a_sense_is_400(api: Api, world: World, pattern: str) -> None:
    create(api, world)
    answer = api.get(f"/servers?name={quote(pattern)}")
    assert answer.fault[0] == "badRequest"
    assert "regular expression" in answer.fault[1]


def test_a_pattern_that_postgresql_needs_too_long_for_is_given_up(api: Api, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LONGEST_SEARCH_SECONDS", 0.3)
    create(api, world, name="ab" * 120)
    answer = api.get(f"/servers?name={quote('((.?){30}){33}y')}")
    if api.db.is_sqlite:
        assert answer.json["servers"] == []
    else:
        assert answer.fault == ("badRequest", "The search took longer than 0.3 seconds.")
        with api.db.read() as conn:
            assert conn.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
    assert names(api, "?name=b$") == ["ab" * 120]


@contextlib.contextmanager
def within_a_minute() -> Iterator[None]:
    """Ends what would go on for years, and each second what goes on after it, so that it fails."""

    def end(*_args: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_unknown_parameters_are_an_error_from_2_75_on(sqlite_api: Api, small_world: World) -> None:
    create(sqlite_api, small_world)
    assert names(sqlite_api, "?colour=red", version="2.74") == ["vm1"]
    answer = sqlite_api.get("/servers?colour=red", version="2.75")
    assert answer.status == 400
    assert "'colour' was unexpected" in answer.fault[1]
    assert names(sqlite_api, "?tags=x", version="2.25") == ["vm1"]


def test_a_page_costs_the_same_number_of_statements_however_long(api: Api, world: World) -> None:
    for count in (1, 10):
        for _ in range(count):
            uuid = create(api, world)
        activate(api, uuid)
        with api.db.write() as conn:
            ports.ensure(conn, uuid, "hullwright", [NetworkRequest(str(uuid4()), world.network)])
        before = api.db.statements
        assert api.get("/servers/detail").status == 200
        cost = api.db.statements - before
        assert cost <= 8


@pytest.mark.parametrize("path", ["/servers/{}", "/servers/detail", "/servers/{}/ips"])
def test_servers_are_shown_without_going_through_hosts_or_networks(sqlite_api: Api, small_world: World, path: str) -> None:
    uuid = create(sqlite_api, small_world)
    give_parts(sqlite_api, small_world, uuid)
    activate(sqlite_api, uuid)
    answers = []
    statements, found = scans(sqlite_api.db, lambda: answers.append(sqlite_api.get(path.format(uuid))))
    assert [answer.status for answer in answers] == [200]
    assert statements >= 3
    assert [(table, text) for table, _, text in found if table in ("hosts", "networks")] == []


def test_a_thousand_servers_are_shown_with_the_same_work_for_each_as_a_hundred(sqlite_api: Api, small_world: World) -> None:
    for _ in range(4):
        sqlite_api.post("/servers", server_body(small_world, max_count=250, metadata={"a": "b"}))
    with sqlite_api.db.write() as conn:
        for uuid in conn.scalars(sa.select(instance_table.c.uuid).limit(150)).all():
            ports.ensure(conn, uuid, "hullwright", [NetworkRequest(str(uuid4()), small_world.network)])
    sqlite_api.get("/servers/detail?limit=1")  # what is done once
    shown: dict[int, int] = {}

    def show(limit: int) -> None:
        shown[limit] = len(sqlite_api.get(f"/servers/detail?limit={limit}").json["servers"])

    few, many = count_calls(lambda: show(100)), count_calls(lambda: show(1000))
    assert shown == {100: 100, 1000: 1000}
    assert many < 11 * few
    assert many < 1000 * _CALLS_FOR_A_SHOWN_SERVER


# --- Deletes ----------------------------------------------------------------------------------------------------------


def test_a_delete_is_accepted_whatever_the_server_does_and_again_while_it_lasts(api: Api, world: World) -> None:
    uuid = create(api, world)
    assert api.delete(f"/servers/{uuid}").status == 204
    server = api.get(f"/servers/{uuid}").json["server"]
    assert (server["status"], server["OS-EXT-STS:task_state"]) == ("BUILD", "deleting")
    assert api.delete(f"/servers/{uuid}").status == 204
    with api.db.read() as conn:
        found = [(job.kind, job.state) for job in jobs.list_jobs(conn, instance_uuid=uuid)]
    # The build had not begun, so it ended at once; one delete is to be done, however often it was asked for.
    assert found == [("delete_instance", "queued"), ("build_instance", "cancelled")]
    set_columns(api, uuid, vm_state="deleted", task_state=None, deleted_at=now(), terminated_at=now())
    assert api.delete(f"/servers/{uuid}").status == 404
    assert api.get(f"/servers/{uuid}").status == 404
    assert names(api, "") == []
    assert names(api, "?deleted=1") == ["vm1"]
    assert names(api, "?status=deleted") == ["vm1"]
    assert names(api, "?changes-since=1970-01-01T00:00:00Z") == ["vm1"]


def test_a_build_under_way_is_told_to_stop_and_a_stuck_delete_is_begun_anew(api: Api, world: World) -> None:
    uuid = create(api, world)
    with api.db.write() as conn:
        leases.take(conn, "somebody", 1)
    assert api.delete(f"/servers/{uuid}").status == 204
    with api.db.read() as conn:
        build, delete = jobs.latest(conn, uuid, "build_instance"), jobs.latest(conn, uuid, "delete_instance")
    assert build is not None
    assert (build.state, build.cancel_requested) == ("running", True)
    assert delete is not None
    with api.db.write() as conn:
        conn.execute(sa.update(job_table).where(job_table.c.uuid == delete.uuid).values(state="stuck"))
    assert api.delete(f"/servers/{uuid}").status == 204
    with api.db.read() as conn:
        again = jobs.latest(conn, uuid, "delete_instance")
    assert again is not None
    assert (again.uuid != delete.uuid, again.state) == (True, "queued")


def test_deletes_at_the_same_moment_post_one_job(api: Api, world: World) -> None:
    uuid = create(api, world)
    ready = threading.Barrier(8)
    outcomes: list[Any] = []

    def ask() -> None:
        ready.wait()
        outcomes.append(api.conductor.delete_server(uuid, Asker("req-x", "p", "u")))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    posted = [outcome for outcome in outcomes if outcome is not None]
    assert (len(outcomes), len(posted)) == (8, 1)
    with api.db.read() as conn:
        kinds = [job.kind for job in jobs.list_jobs(conn, instance_uuid=uuid)]
        actions = conn.scalars(sa.select(instance_actions.c.action).order_by(instance_actions.c.id)).all()
    assert kinds == ["delete_instance", "build_instance"]
    assert actions == ["create", "delete"]


def test_nobody_elses_server_exists(sqlite_api: Api, small_world: World) -> None:
    uuid = create(sqlite_api, small_world)
    set_columns(sqlite_api, uuid, project_id="somebody")
    assert names(sqlite_api, "") == []
    assert sqlite_api.get(f"/servers/{uuid}").status == 200  # an administrator sees it by its id
    with sqlite_api.db.read() as conn:
        assert instances.get(conn, uuid).project_id == "somebody"
