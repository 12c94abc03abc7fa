"""The Build API over records as the conductor writes them: shapes, folding of events, what others may see, and the stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from falcon import testing

from hullwright.api.builds.steps import fold
from hullwright.api.builds.stream import Streams, TooManyStreams
from hullwright.objects.builds import StepEvent
from hullwright.objects.instances import Fault
from hullwright.objects.placement import PlacementReport, Rejection, WeighedHost
from hullwright.objects.states import AttemptState, JobState
from hullwright.persistence import attempts, events, faults, jobs
from hullwright.persistence.database import Database
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.persistence.models.jobs import step_events

Change = tuple[int, str, str]  # attempt, step, to_state


class Recorder:
    """Writes what a conductor would: jobs, attempts, events with the job's counter in one transaction."""

    def __init__(self, db: Database, server_id: str) -> None:
        self.db = db
        self.server_id = server_id
        self.seq = 0
        with db.write() as conn:
            self.job = jobs.post(conn, kind="build_instance", instance_uuid=server_id, inputs={}, request_id="req-1")

    def tell(self, *changes: Change, result: Any = None, **columns: Any) -> None:
        with self.db.write() as conn:
            for attempt, step, state in changes:
                self.seq += 1
                row = StepEvent(
                    self.job,
                    self.seq,
                    attempt,
                    step,
                    None,
                    state,
                    1000.0 + self.seq,
                    "conductor-1",
                    1,
                    "host-1" if attempt else None,
                    result,
                )
                conn.execute(step_events.insert(), row.to_dict())
            conn.execute(jobs_table.update().where(jobs_table.c.uuid == self.job).values(seq=self.seq, **columns))

    def attempt(self, number: int, state: AttemptState, **fields: Any) -> None:
        with self.db.write() as conn:
            attempts.begin(conn, job_uuid=self.job, number=number, instance_uuid=self.server_id, host=f"host-{number}", **fields)
            if state != AttemptState.RUNNING:
                attempts.end(conn, self.job, number, state)

    def progress(self, done: int, total: int) -> None:
        with self.db.write() as conn:
            events.record_progress(conn, job_uuid=self.job, step="fetch_image", done=done, total=total, unit="bytes")

    def rest(self, state: JobState) -> None:
        self.tell((0, "", "SUCCESS"), state=state, progress=100, finished_at=2000.0)


@pytest.fixture
def build(db: Database, make_instance: Callable[..., str]) -> Recorder:
    return Recorder(db, make_instance())


def parse(chunks: Iterator[bytes]) -> Iterator[tuple[str | None, str, Any]]:
    """(id, event, data) of each event."""
    text = ""
    for chunk in chunks:
        text += chunk.decode()
        while "\n\n" in text:
            block, _, text = text.partition("\n\n")
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "event" in fields:
                yield fields.get("id"), fields["event"], json.loads(fields["data"])


def streamed(result: testing.Result) -> list[tuple[str | None, str, Any]]:
    assert result.status_code == 200
    assert result.headers["content-type"].startswith("text/event-stream")
    return list(parse(iter([result.content])))


REPORT = PlacementReport(
    3,
    "host-1",
    (
        Rejection("capacity", "lack 4096 MB memory", 1, ("host-3",)),
        Rejection("retry", "already tried", 1, ("host-2",), ("host-2: libvirt: boom",)),
    ),
    (WeighedHost("host-1", 1.5),),
)


def a_build_on_its_second_host(build: Recorder) -> None:
    build.tell(
        (0, "", "RUNNING"),
        (0, "guard", "RUNNING"),
        (0, "guard", "SUCCESS"),
        state="running",
        started_at=1000.5,
        deadline_at=9000.0,
        owner="conductor-1",
    )
    build.attempt(
        1, AttemptState.FAILED, report=REPORT.to_dict(), step="spawn", error="HostDiskFull", reason="No space left on host host-1: /x"
    )
    build.tell((1, "reschedule", "RUNNING"), (1, "claim", "RUNNING"), (1, "claim", "SUCCESS"), (1, "spawn", "RUNNING"))
    build.tell((1, "spawn", "FAILURE"), result={"error": "HostDiskFull", "message": "No space left on host host-1: /x"})
    build.tell((1, "claim", "REVERTING"), (1, "claim", "REVERTED"), (1, "reschedule", "RETRYING"))
    build.attempt(2, AttemptState.RUNNING, report={})
    build.tell((2, "claim", "RUNNING"), (2, "claim", "SUCCESS"), (2, "fetch_image", "RUNNING"), (2, "fetch_image", "RESUMED"), progress=40)
    build.progress(25, 100)


def test_a_build_tells_its_attempts_steps_undos_reasons_and_bytes(api: testing.TestClient, build: Recorder) -> None:
    a_build_on_its_second_host(build)
    found = api.simulate_get(f"/v1/builds/{build.job}").json["build"]
    assert (found["id"], found["server_id"], found["state"], found["progress"]) == (build.job, build.server_id, "running", 40)
    first, second = found["attempts"]
    assert (first["state"], first["host"], first["step"], first["error"]) == ("failed", "host-1", "spawn", "HostDiskFull")
    assert "Free space on the host" in first["hint"]
    assert first["placement"]["summary"].startswith("1 of 3 hosts fit: 1 lack 4096 MB memory")
    assert first["placement"]["rejections"][0]["hosts"] == ["host-3"]
    claim, spawn = first["steps"]
    assert (claim["name"], claim["state"], claim["duration_seconds"], claim["undo"]["state"]) == ("claim", "REVERTED", 1.0, "REVERTED")
    assert (spawn["state"], spawn["error"]["error"], spawn["undo"]) == ("FAILURE", "HostDiskFull", None)
    assert second["placement"] is None
    assert (found["current_step"]["name"], found["current_step"]["attempt"], found["current_step"]["resumed"]) == ("fetch_image", 2, 1)
    assert found["current_step"]["limit_seconds"] == 600.0
    assert [(each["done"], each["percent"]) for each in found["step_progress"]] == [(25, 25)]
    assert [step["name"] for step in found["steps"]] == ["guard"]
    assert found["deadline"] == "1970-01-01T02:30:00.000000Z"
    assert found["started_at"] == "1970-01-01T00:16:40.500000Z"
    assert [event["seq"] for event in found["events"]] == list(range(1, found["last_seq"] + 1))


def test_a_servers_id_means_its_newest_build(api: testing.TestClient, build: Recorder, db: Database) -> None:
    with db.write() as conn:
        newer = jobs.post(conn, kind="build_instance", instance_uuid=build.server_id, inputs={})
        jobs.post(conn, kind="delete_instance", instance_uuid=build.server_id, inputs={})
    assert api.simulate_get(f"/v1/builds/{build.server_id}").json["build"]["id"] == newer


def test_builds_are_listed_newest_first_filtered_and_paged(
    api: testing.TestClient, db: Database, make_instance: Callable[..., str]
) -> None:
    made = [Recorder(db, make_instance()) for _ in range(3)]
    made[1].rest(JobState.DONE)
    with db.write() as conn:
        jobs.post(conn, kind="delete_instance", instance_uuid=made[0].server_id, inputs={})

    def listed(query: str) -> list[str]:
        return [found["id"] for found in api.simulate_get("/v1/builds", query_string=query).json["builds"]]

    ids = [each.job for each in reversed(made)]
    assert listed("") == ids
    assert listed("state=done") == [made[1].job]
    assert listed("state=queued&state=done") == ids
    assert listed(f"server={made[2].server_id}") == [made[2].job]
    assert len(listed("kind=all")) == 4
    first = api.simulate_get("/v1/builds", query_string="limit=2").json
    assert [found["id"] for found in first["builds"]] == ids[:2]
    assert listed(first["next"].partition("?")[2]) == ids[2:]


def test_a_build_that_waits_for_room_tells_its_place(
    api: testing.TestClient, member_api: testing.TestClient, db: Database, make_instance: Callable[..., str]
) -> None:
    first, second, other = [Recorder(db, make_instance()) for _ in range(3)]
    wait = {"waits_for": "the same", "waiting_since": 1000.0, "not_before": 4600.0}
    for each in (first, second):
        each.tell((1, "select_host", "RUNNING"), **wait)
        each.tell((1, "select_host", "WAITING"), result={"reason": "0 of 1 host fit: 1 lack 512 MB memory.", "until": 4600.0})
    listed = api.simulate_get("/v1/builds", query_string="waiting=true").json["builds"]
    assert [(build["id"], build["waiting"]["place"], build["waiting"]["of"]) for build in listed] == [(second.job, 2, 2), (first.job, 1, 2)]
    assert listed[0]["waiting"]["since"] == "1970-01-01T00:16:40.000000Z"
    assert listed[0]["waiting"]["until"] == "1970-01-01T01:16:40.000000Z"
    for caller in (api, member_api):
        shown = caller.simulate_get(f"/v1/builds/{first.job}").json["build"]
        assert (shown["waiting"]["place"], shown["current_step"]["state"]) == (1, "WAITING")
        told = shown["events"][-1]["result"]
        assert told == {"reason": "0 of 1 host fit: 1 lack 512 MB memory.", "until": "1970-01-01T01:16:40.000000Z"}
    assert api.simulate_get(f"/v1/builds/{other.job}").json["build"]["waiting"] is None
    first.tell((1, "select_host", "RESUMED"), state="running", waits_for="the same", not_before=0.0)
    looking = api.simulate_get(f"/v1/builds/{first.job}").json["build"]
    assert (looking["waiting"]["until"], looking["current_step"]["state"], looking["current_step"]["resumed"]) == (None, "RUNNING", 0)


@pytest.mark.parametrize("query", ["state=unknown", "limit=many", "waiting=perhaps"])
def test_a_list_asked_for_wrongly_is_refused_in_the_build_apis_form(api: testing.TestClient, query: str) -> None:
    result = api.simulate_get("/v1/builds", query_string=query)
    assert result.status_code == 400
    assert set(result.json["error"]) == {"code", "type", "message", "hint"}
    assert result.json["error"]["type"] == "BadRequest"


def test_every_refusal_has_a_name_and_says_what_to_do(api: testing.TestClient, build: Recorder) -> None:
    asked = {
        ("GET", "/v1/builds/nothing"): "JobNotFound",
        ("GET", "/v1/builds/a/b"): "NotFound",
        ("DELETE", "/v1/builds"): "MethodNotAllowed",
        ("GET", "/v1/builds?state=unknown"): "BadRequest",
        ("POST", "/v1/placement:explain"): "BadRequest",
    }
    for (method, path), kind in asked.items():
        error = api.simulate_request(method, path).json["error"]
        assert error["type"] == kind
        assert error["hint"].endswith("."), path


def test_a_stream_names_what_was_wrong_with_its_beginning(api: testing.TestClient, build: Recorder) -> None:
    path = f"/v1/builds/{build.job}/stream"
    by_query = api.simulate_get(path, query_string="after=abc").json["error"]
    by_header = api.simulate_get(path, headers={"Last-Event-ID": "abc"}).json["error"]
    assert by_query["message"] == "after must be the number of an event, not 'abc'."
    assert by_header["message"] == "Last-Event-ID must be the number of an event, not 'abc'."


def test_an_unknown_build_is_not_found(api: testing.TestClient) -> None:
    for path in ("/v1/builds/nothing", "/v1/builds/nothing/events", "/v1/builds/nothing/stream"):
        assert api.simulate_get(path).status_code == 404


def test_events_behind_a_number_are_given(api: testing.TestClient, build: Recorder) -> None:
    build.tell((0, "guard", "RUNNING"), (0, "guard", "SUCCESS"), (0, "reserve", "RUNNING"))
    found = api.simulate_get(f"/v1/builds/{build.job}/events", query_string="after=1").json
    assert [(each["seq"], each["step"], each["to_state"]) for each in found["events"]] == [
        (2, "guard", "SUCCESS"),
        (3, "reserve", "RUNNING"),
    ]
    assert (found["last_seq"], found["at_rest"]) == (3, False)
    assert api.simulate_get(f"/v1/builds/{build.job}/events", query_string="after=3").json["events"] == []


def test_a_user_sees_what_failed_and_no_host_path_or_conductor(member_api: testing.TestClient, build: Recorder, db: Database) -> None:
    a_build_on_its_second_host(build)
    with db.write() as conn:
        faults.record(conn, Fault(build.server_id, 500, "The build failed.", "host-1: spawn: /x", "host-1", "spawn"))
    result = member_api.simulate_get(f"/v1/builds/{build.job}")
    assert result.status_code == 200
    for secret in ("host-1", "host-2", "host-3", "conductor-1", "/x"):
        assert secret not in result.text
    found = result.json["build"]
    assert found["attempts"][0]["reason"] == "The host has no room on its disk."
    assert found["attempts"][0]["placement"]["rejections"][1] == {"check": "retry", "reason": "already tried", "count": 1, "hosts": []}
    stream = member_api.simulate_get(f"/v1/builds/{build.job}/events").text
    assert "host-1" not in stream


def test_another_projects_build_is_not_found(member_api: testing.TestClient, db: Database, make_instance: Callable[..., str]) -> None:
    other = Recorder(db, make_instance(project_id="other"))
    assert member_api.simulate_get(f"/v1/builds/{other.job}").status_code == 404
    assert member_api.simulate_get("/v1/builds").json["builds"] == []


def test_the_stream_of_a_build_at_rest_tells_everything_and_ends(api: testing.TestClient, build: Recorder) -> None:
    build.tell((0, "guard", "RUNNING"), (0, "guard", "SUCCESS"))
    build.progress(5, 10)
    build.rest(JobState.DONE)
    found = streamed(api.simulate_get(f"/v1/builds/{build.job}/stream"))
    assert [(id, name) for id, name, _ in found] == [
        (None, "state"),
        ("1", "step"),
        ("2", "step"),
        ("3", "step"),
        (None, "progress"),
        (None, "end"),
    ]
    assert found[-1][2]["state"] == "done"
    by_accept = api.simulate_get(f"/v1/builds/{build.job}/events", headers={"Accept": "text/event-stream"})
    assert streamed(by_accept) == found


def test_a_stream_goes_on_behind_the_last_event_seen_wherever_it_was_cut(api: testing.TestClient, build: Recorder) -> None:
    build.tell(*((0, f"step-{n}", "RUNNING") for n in range(20)))
    build.rest(JobState.DONE)
    for cut in range(22):
        found = streamed(api.simulate_get(f"/v1/builds/{build.job}/stream", headers={"Last-Event-ID": str(cut)}))
        assert [int(id) for id, name, _ in found if name == "step" and id] == list(range(cut + 1, 22))
        assert found[-1][1] == "end"
    assert api.simulate_get(f"/v1/builds/{build.job}/stream", headers={"Last-Event-ID": "x"}).status_code == 400


def test_a_stream_cut_again_and_again_while_the_build_runs_misses_and_repeats_nothing(build: Recorder, db: Database, conf: Any) -> None:
    conf.set_override("poll_seconds", 0.01, group="builds")
    streams = Streams(db, conf, threading.Event())

    def write() -> None:
        for number in range(100):
            build.tell((1, f"step-{number}", "RUNNING"), (1, f"step-{number}", "SUCCESS"), progress=number)
        build.rest(JobState.DONE)

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []
    ended = False
    while not ended:
        stream = streams.open(build.job, seen[-1] if seen else 0, admin=True)
        for count, (id, name, _) in enumerate(parse(stream)):
            ended = name == "end"
            if id is not None:
                seen.append(int(id))
            if count == 6:
                break  # cut in the middle of whatever was being sent
        stream.close()
    writer.join()
    assert seen == list(range(1, build.seq + 1))


def test_a_stream_tells_news_and_keeps_a_silent_connection_alive(build: Recorder, db: Database, conf: Any) -> None:
    conf.set_override("poll_seconds", 0.01, group="builds")
    conf.set_override("keepalive_seconds", 0.1, group="builds")
    stream = Streams(db, conf, threading.Event()).open(build.job, 0, admin=True)
    assert next(stream).startswith(b"retry:")
    assert b"event: state" in next(stream)
    assert next(stream).startswith(b": ")
    build.progress(3, 10)
    news = next(stream)
    while news.startswith(b": "):
        news = next(stream)
    assert b"event: progress" in news
    assert b'"percent":30' in news
    before = db.statements
    next(stream)  # a tenth of a second of silence
    assert db.statements - before <= 12  # one for each look
    stream.close()


def test_streams_beyond_the_limit_are_refused_until_one_is_closed(
    api: testing.TestClient, build: Recorder, db: Database, conf: Any
) -> None:
    conf.set_override("max_streams", 2, group="builds")
    streams = Streams(db, conf, threading.Event())
    held = [streams.open(build.job, 0, admin=True) for _ in range(2)]
    with pytest.raises(TooManyStreams):
        streams.open(build.job, 0, admin=True)
    held[0].close()
    held[0].close()
    third = streams.open(build.job, 0, admin=True)
    with pytest.raises(TooManyStreams):
        streams.open(build.job, 0, admin=True)
    for stream in (held[1], third):
        stream.close()
    conf.set_override("max_streams", 0, group="builds")
    with pytest.raises(TooManyStreams):
        Streams(db, conf, threading.Event()).open(build.job, 0, admin=True)


def test_streams_end_when_the_process_stops(build: Recorder, db: Database, conf: Any) -> None:
    stopping = threading.Event()
    streams = Streams(db, conf, stopping)
    stream = streams.open(build.job, 0, admin=True)
    next(stream)
    next(stream)
    stopping.set()
    assert list(stream) == []
    with pytest.raises(TooManyStreams):
        streams.open(build.job, 0, admin=True)


def test_steps_fold_through_crashes_retries_of_an_undo_and_missing_beginnings() -> None:
    def event(seq: int, state: str, step: str = "spawn", result: Any = None) -> StepEvent:
        return StepEvent("job", seq, 1, step, None, state, float(seq), "c", 1, None, result)

    story = [
        event(1, "RUNNING"),
        event(2, "RESUMED"),
        event(3, "RUNNING"),
        event(4, "FAILURE", result={"error": "HypervisorError", "message": "no"}),
        event(5, "REVERTING"),
        event(6, "REVERT_FAILURE", result={"error": "HypervisorError", "message": "still no"}),
        event(7, "REVERTING"),
        event(8, "REVERTED"),
        event(9, "REVERTED", step="never_ran"),
        event(10, "RETRYING", step="reschedule"),
        event(11, "SUCCESS", step=""),
    ]
    spawn, never_ran = fold(story)
    assert spawn.run is not None
    assert (spawn.run.started_at, spawn.run.finished_at, spawn.run.resumed, spawn.run.error) == (1.0, 4.0, 1, "HypervisorError")
    assert spawn.undo is not None
    assert (spawn.undo.started_at, spawn.undo.finished_at, spawn.undo.state) == (7.0, 8.0, "REVERTED")
    assert (spawn.state, spawn.is_open) == ("REVERTED", False)
    assert (never_ran.run, never_ran.state) == (None, "REVERTED")
