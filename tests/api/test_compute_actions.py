"""What one does to a server: actions and their preconditions, metadata, tags, and the record of it all."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.api.server_actions import tail
from hullwright.objects.builds import StepEvent
from hullwright.objects.history import History
from hullwright.objects.states import JobState
from hullwright.persistence import actions, jobs
from hullwright.persistence.database import now
from hullwright.persistence.models.jobs import jobs as job_table
from hullwright.persistence.models.jobs import step_events

from .conftest import Api, World, activate, create, set_columns

STATES = ["building", "active", "paused", "suspended", "stopped", "error"]


@pytest.mark.parametrize(
    ("action", "allowed", "kind", "task_state"),
    [
        ({"os-start": None}, {"stopped"}, "start_instance", "powering-on"),
        ({"os-stop": None}, {"active", "error"}, "stop_instance", "powering-off"),
        ({"reboot": {"type": "SOFT"}}, {"active"}, "reboot_instance", "rebooting"),
        (
            {"reboot": {"type": "HARD"}},
            {"active", "stopped", "paused", "suspended", "error"},
            "reboot_instance",
            "rebooting_hard",
        ),
    ],
)
def test_power_actions_are_jobs_in_the_states_that_allow_them(
    sqlite_api: Api, small_world: World, action: dict[str, Any], allowed: set[str], kind: str, task_state: str
) -> None:
    for state in STATES:
        uuid = create(sqlite_api, small_world)
        activate(sqlite_api, uuid)
        set_columns(sqlite_api, uuid, vm_state=state)
        answer = sqlite_api.post(f"/servers/{uuid}/action", action)
        with sqlite_api.db.read() as conn:
            job = jobs.latest(conn, uuid, kind)
        if state in allowed:
            assert (answer.status, answer.text) == (202, "")
            assert job is not None
            assert job.request_id == answer.headers["x-compute-request-id"]
            shown = sqlite_api.get(f"/servers/{uuid}").json["server"]
            assert (shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:task_state"]) == (state, task_state)
            assert sqlite_api.get(f"/servers/{uuid}/os-instance-actions").json["instanceActions"][0]["request_id"] == job.request_id
        else:
            verb = next(iter(action)).removeprefix("os-")
            message = f"Cannot '{verb}' instance {uuid} while it is in vm_state {state}"
            assert (answer.status, answer.fault) == (409, ("conflictingRequest", message))
            assert job is None


def test_one_thing_at_a_time(api: Api, world: World) -> None:
    uuid = create(api, world)
    activate(api, uuid)
    assert api.post(f"/servers/{uuid}/action", {"os-stop": None}).status == 202
    answer = api.post(f"/servers/{uuid}/action", {"os-stop": None})
    assert answer.fault[1] == f"Cannot 'stop' instance {uuid} while it is in task_state powering-off"
    answer = api.post(f"/servers/{uuid}/action", {"reboot": {"type": "SOFT"}})
    assert answer.status == 409
    assert api.delete(f"/servers/{uuid}").status == 204
    assert api.post(f"/servers/{uuid}/action", {"os-stop": None}).status == 409


def test_a_server_whose_build_failed_has_no_guest_to_act_on(sqlite_api: Api, small_world: World) -> None:
    uuid = create(sqlite_api, small_world)
    set_columns(sqlite_api, uuid, vm_state="error", task_state=None)
    for action in ({"os-stop": None}, {"reboot": {"type": "HARD"}}, {"os-getConsoleOutput": {}}):
        assert sqlite_api.post(f"/servers/{uuid}/action", action).status == 409


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"dance": None}, "There is no such action: dance"),
        ({}, "Malformed request body"),
        ([], "Malformed request body"),
        ({"os-start": None, "os-stop": None}, "Malformed request body"),
        ({"reboot": {"type": "MAYBE"}}, "Invalid input for field/attribute type."),
        ({"reboot": {}}, "Invalid input for field/attribute reboot."),
        ({"os-resetState": {"state": "new"}}, "Invalid input for field/attribute state."),
        ({"os-getConsoleOutput": {"length": "x"}}, "Invalid input for field/attribute length."),
    ],
)
def test_what_is_no_action_is_400(sqlite_api: Api, small_world: World, body: Any, message: str) -> None:
    uuid = create(sqlite_api, small_world)
    import json

    answer = sqlite_api.post(f"/servers/{uuid}/action", body=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.fault[0] == "badRequest"
    assert answer.fault[1].startswith(message)


def test_a_lock_is_kept_with_its_reason(api: Api, world: World) -> None:
    uuid = create(api, world)
    assert api.post(f"/servers/{uuid}/action", {"lock": {"locked_reason": "mine"}}).status == 202
    server = api.get(f"/servers/{uuid}").json["server"]
    assert (server["locked"], server["locked_reason"]) == (True, "mine")
    assert [s["id"] for s in api.get("/servers?locked=true").json["servers"]] == [uuid]
    assert api.post(f"/servers/{uuid}/action", {"lock": {"locked_reason": "x" * 256}}).status == 400
    assert api.post(f"/servers/{uuid}/action", {"lock": {"locked_reason": "x"}}, version="2.72").status == 202
    assert api.get(f"/servers/{uuid}").json["server"]["locked_reason"] is None
    assert api.post(f"/servers/{uuid}/action", {"unlock": None}).status == 202
    assert api.get(f"/servers/{uuid}").json["server"]["locked"] is False
    recorded = [a["action"] for a in api.get(f"/servers/{uuid}/os-instance-actions").json["instanceActions"]]
    assert recorded == ["unlock", "lock", "lock", "create"]


def test_a_state_is_reset_only_when_nothing_is_under_way(api: Api, world: World) -> None:
    uuid = create(api, world)
    body = {"os-resetState": {"state": "error"}}
    assert api.post(f"/servers/{uuid}/action", body).status == 409
    activate(api, uuid)
    assert api.post(f"/servers/{uuid}/action", body).status == 202
    assert api.get(f"/servers/{uuid}").json["server"]["status"] == "ERROR"
    assert api.post(f"/servers/{uuid}/action", {"os-resetState": {"state": "active"}}).status == 202
    assert api.get(f"/servers/{uuid}").json["server"]["status"] == "ACTIVE"


def test_force_delete_is_a_delete(sqlite_api: Api, small_world: World) -> None:
    uuid = create(sqlite_api, small_world)
    assert sqlite_api.post(f"/servers/{uuid}/action", {"forceDelete": None}).status == 202
    with sqlite_api.db.read() as conn:
        assert jobs.latest(conn, uuid, "build_instance").state == JobState.CANCELLED  # type: ignore[union-attr]


# --- Console ----------------------------------------------------------------------------------------------------------


def answer_questions(api: Api, state: JobState, result: Any = None, error: str | None = None) -> threading.Thread:
    """A conductor that answers one question."""

    def run() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with api.db.write() as conn:
                query = sa.select(job_table.c.uuid).where(job_table.c.kind == "console_log", job_table.c.state == "queued")
                uuid = conn.scalar(query)
                if uuid is not None:
                    changes = {"state": state, "result": result, "error": error, "finished_at": now()}
                    conn.execute(sa.update(job_table).where(job_table.c.uuid == uuid).values(**changes))
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_console_is_asked_of_a_conductor(api: Api, world: World) -> None:
    uuid = create(api, world)
    activate(api, uuid)
    thread = answer_questions(api, JobState.DONE, "one\ntwo\nthree\n")
    answer = api.post(f"/servers/{uuid}/action", {"os-getConsoleOutput": {"length": "2"}})
    thread.join()
    assert (answer.status, answer.json) == (200, {"output": "two\nthree\n"})
    with api.db.read() as conn:
        assert jobs.list_jobs(conn, kinds=["console_log"]) == []  # what it said is not kept
    thread = answer_questions(api, JobState.STUCK, error="Hypervisor of host host1 cannot be reached")
    answer = api.post(f"/servers/{uuid}/action", {"os-getConsoleOutput": {}})
    thread.join()
    assert (answer.status, answer.fault[1]) == (503, "Hypervisor of host host1 cannot be reached")


def test_a_question_that_nobody_answers_is_503_in_time(sqlite_api: Api, small_world: World) -> None:
    uuid = create(sqlite_api, small_world)
    activate(sqlite_api, uuid)
    sqlite_api.conf.set_override("query_timeout_seconds", 0.2, group="api")
    answer = sqlite_api.post(f"/servers/{uuid}/action", {"os-getConsoleOutput": {"length": None}})
    assert (answer.status, answer.fault[0]) == (503, "serviceUnavailable")


@pytest.mark.parametrize(("lines", "expected"), [(None, "a\nb\nc\n"), (0, ""), (1, "c\n"), (2, "b\nc\n"), (9, "a\nb\nc\n")])
def test_the_tail_of_a_log_is_counted_in_lines(lines: int | None, expected: str) -> None:
    assert tail("a\nb\nc\n", lines) == expected
    assert tail("a\nb", 1) == "b"


# --- Metadata and tags ------------------------------------------------------------------------------------------------


def test_metadata_is_read_and_written(api: Api, world: World) -> None:
    uuid = create(api, world, metadata={"a": "1"})
    path = f"/servers/{uuid}/metadata"
    answer = api.post(path, {"metadata": {"b": "2"}})
    assert answer.fault[1] == f"Cannot 'update metadata' instance {uuid} while it is in vm_state building"
    activate(api, uuid)
    assert api.post(path, {"metadata": {"b": "2"}}).json == {"metadata": {"a": "1", "b": "2"}}
    assert api.put(f"{path}/c", {"meta": {"c": "3"}}).json == {"meta": {"c": "3"}}
    assert api.get(f"{path}/c").json == {"meta": {"c": "3"}}
    assert api.put(f"{path}/d", {"meta": {"c": "3"}}).fault[1] == "Request body and URI mismatch"
    assert api.delete(f"{path}/a").status == 204
    assert api.delete(f"{path}/a").fault == ("itemNotFound", "Metadata item was not found")
    assert api.get(path).json == {"metadata": {"b": "2", "c": "3"}}
    assert api.put(path, {"metadata": {"z": "9"}}).json == {"metadata": {"z": "9"}}
    assert api.post(path, {"metadata": {str(i): "x" for i in range(128)}}).status == 403
    assert api.get(path).json == {"metadata": {"z": "9"}}


def test_tags_are_read_and_written(api: Api, world: World) -> None:
    uuid = create(api, world, tags=["a"])
    path = f"/servers/{uuid}/tags"
    assert api.put(f"{path}/b").status == 409
    activate(api, uuid)
    answer = api.put(f"{path}/b")
    assert (answer.status, answer.headers["Location"].endswith(f"{path}/b")) == (201, True)
    assert api.put(f"{path}/b").status == 204
    assert api.get(path).json == {"tags": ["a", "b"]}
    assert (api.get(f"{path}/b").status, api.get(f"{path}/x").status) == (204, 404)
    assert (api.delete(f"{path}/a").status, api.delete(f"{path}/a").status) == (204, 404)
    assert api.put(path, {"tags": ["x", "y", "x"]}).json == {"tags": ["x", "y"]}
    assert api.put(path, {"tags": [f"t{i}" for i in range(50)]}).status == 200
    assert api.put(f"{path}/one-more").status == 400
    assert api.put(f"{path}/a,b").status == 400
    assert api.delete(path).status == 204
    assert api.get(path).json == {"tags": []}


# --- The record -------------------------------------------------------------------------------------------------------


def step(seq: int, attempt: int, name: str, to: str, **more: Any) -> StepEvent:
    return StepEvent("job", seq, attempt, name, None, to, 100.0 + seq, "owner", 1, **more)


def test_events_tell_each_attempt_and_each_undo_as_it_was() -> None:
    failure = {"error": "HypervisorError", "message": "spawn failed on host host1", "hint": "look there"}
    events = [
        step(1, 0, "", "RUNNING"),
        step(2, 0, "reserve", "RUNNING"),
        step(3, 0, "reserve", "SUCCESS"),
        step(4, 1, "spawn", "RUNNING", host="host1"),
        step(5, 1, "spawn", "FAILURE", host="host1", result=failure),
        step(6, 1, "spawn", "REVERTING", host="host1"),
        step(7, 1, "spawn", "REVERTED", host="host1"),
        step(8, 2, "spawn", "RUNNING", host="host2"),
        step(9, 2, "spawn", "RESUMED", host="host2"),
        step(10, 2, "spawn", "RUNNING", host="host2"),
    ]
    found = [(run.title, run.attempt, run.state, run.host) for run in History().apply_all(events).runs]
    assert found == [
        ("reserve", 0, "SUCCESS", None),
        ("spawn", 1, "FAILURE", "host1"),
        ("undo spawn", 1, "REVERTED", "host1"),
        ("spawn", 2, "RUNNING", "host2"),  # a crash does not make it two, and it has not ended
    ]


def test_an_action_shows_its_events_in_its_version(api: Api, world: World) -> None:
    uuid = create(api, world)
    with api.db.write() as conn:
        job = jobs.latest(conn, uuid)
        assert job is not None
        failure = {"error": "HypervisorError", "message": "spawn failed on host host1"}
        for seq, (to, result) in enumerate([("RUNNING", None), ("FAILURE", failure)], 1):
            row = step(seq, 1, "spawn", to, host="host1", result=result).to_dict() | {"job_uuid": job.uuid}
            conn.execute(sa.insert(step_events), row)
        actions.finish(conn, job.uuid, failed=True)
    [action] = api.get(f"/servers/{uuid}/os-instance-actions").json["instanceActions"]
    assert (action["action"], action["message"]) == ("create", "Error")
    path = f"/servers/{uuid}/os-instance-actions/{action['request_id']}"
    [event] = api.get(path).json["instanceAction"]["events"]
    assert (event["event"], event["result"], event["host"]) == ("spawn", "Error", "host1")
    assert event["start_time"] == "1970-01-01T00:01:41.000000"
    assert event["details"] == "attempt 1: spawn failed on host host1"
    assert set(api.get(path, version="2.61").json["instanceAction"]["events"][0]) == {
        "event", "start_time", "finish_time", "result", "traceback",
    }  # fmt: skip
    assert "updated_at" not in api.get(path, version="2.57").json["instanceAction"]
    assert api.get(f"/servers/{uuid}/os-instance-actions/req-nope").status == 404


def test_an_action_tells_that_its_build_waits_for_room(api: Api, world: World) -> None:
    uuid = create(api, world)
    with api.db.write() as conn:
        job = jobs.latest(conn, uuid)
        assert job is not None
        for seq, to in enumerate(("RUNNING", "WAITING"), 1):
            conn.execute(sa.insert(step_events), step(seq, 1, "select_host", to).to_dict() | {"job_uuid": job.uuid})
    [action] = api.get(f"/servers/{uuid}/os-instance-actions").json["instanceActions"]
    [event] = api.get(f"/servers/{uuid}/os-instance-actions/{action['request_id']}").json["instanceAction"]["events"]
    assert (event["event"], event["result"], event["details"]) == ("select_host", None, "attempt 1: waits for room")


def test_the_record_comes_in_pages_and_outlives_the_server(api: Api, world: World) -> None:
    uuid = create(api, world)
    for _ in range(2):
        api.post(f"/servers/{uuid}/action", {"lock": None})
    path = f"/servers/{uuid}/os-instance-actions"
    answer = api.get(f"{path}?limit=2")
    assert [a["action"] for a in answer.json["instanceActions"]] == ["lock", "lock"]
    rest = api.get(answer.json["links"][0]["href"].split("/v2.1", 1)[1])
    assert ([a["action"] for a in rest.json["instanceActions"]], "links" in rest.json) == (["create"], False)
    assert api.get(f"{path}?marker=nope").status == 400
    assert api.get(f"{path}?changes-since=2999-01-01T00:00:00Z").json == {"instanceActions": []}
    assert len(api.get(f"{path}?changes-before=2999-01-01T00:00:00Z").json["instanceActions"]) == 3
    assert api.get(f"{path}?colour=red").status == 400
    set_columns(api, uuid, vm_state="deleted", deleted_at=now())
    assert api.get(path, version="2.20").status == 404
    assert len(api.get(path, version="2.21").json["instanceActions"]) == 3
