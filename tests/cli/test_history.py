"""Step events become a history that a person reads."""

from __future__ import annotations

import dataclasses
from typing import Any

from hullwright.objects.builds import StepEvent
from hullwright.objects.history import History

BEGUN = 1_000.0


def events(*changes: tuple[int, str, str, float], result: Any = None) -> list[StepEvent]:
    """(attempt, step, state, second); `result`: of the last one."""
    told = [
        StepEvent("job", number, attempt, step, None, state, BEGUN + second, "c", 1)
        for number, (attempt, step, state, second) in enumerate(changes, 1)
    ]
    return [*told[:-1], dataclasses.replace(told[-1], result=result)]


def test_a_step_that_ran_has_its_times() -> None:
    history = History().apply_all(events((1, "claim", "PENDING", 0), (1, "claim", "RUNNING", 1), (1, "claim", "SUCCESS", 1.5)))
    (run,) = history.runs
    assert (run.title, run.state, run.started_at, run.seconds()) == ("claim", "SUCCESS", BEGUN + 1, 0.5)


def test_a_pending_step_is_not_shown() -> None:
    assert History().apply_all(events((0, "guard", "PENDING", 0))).runs == []


def test_a_running_step_counts_until_now() -> None:
    (run,) = History().apply_all(events((1, "spawn", "RUNNING", 0))).runs
    assert run.seconds() is None
    assert run.seconds(BEGUN + 7) == 7


def test_an_undo_is_a_run_of_its_own() -> None:
    history = History().apply_all(
        events(
            (1, "claim", "RUNNING", 0),
            (1, "claim", "SUCCESS", 1),
            (1, "spawn", "RUNNING", 1),
            (1, "spawn", "FAILURE", 2),
            (1, "spawn", "REVERTING", 2),
            (1, "spawn", "REVERTED", 3),
            (1, "claim", "REVERTING", 3),
            (1, "claim", "REVERTED", 5),
        )
    )
    assert [(run.title, run.state, run.seconds()) for run in history.runs] == [
        ("claim", "SUCCESS", 1),
        ("spawn", "FAILURE", 1),
        ("undo spawn", "REVERTED", 1),
        ("undo claim", "REVERTED", 2),
    ]


def test_a_failure_says_which_error() -> None:
    failed = {"error": "HostDiskFull", "message": "No space left on host a", "hint": "Free some"}
    (run,) = History().apply_all(events((1, "spawn", "RUNNING", 0), (1, "spawn", "FAILURE", 1), result=failed)).runs
    assert run.note == "HostDiskFull: No space left on host a"


def test_the_same_step_of_another_attempt_is_another_run() -> None:
    history = History().apply_all(
        events((1, "claim", "RUNNING", 0), (1, "claim", "SUCCESS", 1), (2, "claim", "RUNNING", 2), (2, "claim", "SUCCESS", 3))
    )
    assert [run.attempt for run in history.runs] == [1, 2]


def test_a_step_that_a_crash_cut_off_goes_on_in_the_same_run() -> None:
    history = History().apply_all(
        events((1, "fetch_image", "RUNNING", 0), (1, "fetch_image", "RESUMED", 10), (1, "fetch_image", "SUCCESS", 12))
    )
    (run,) = history.runs
    assert (run.resumed, run.state, run.seconds()) == (1, "SUCCESS", 12)


def test_a_beginning_that_is_told_again_after_a_crash_counts_the_crash_once() -> None:
    begun = (1, "spawn", "RUNNING", 0), (1, "spawn", "RESUMED", 10), (1, "spawn", "RUNNING", 11), (1, "spawn", "SUCCESS", 12)
    (run,) = History().apply_all(events(*begun)).runs
    assert (run.resumed, run.started_at, run.seconds()) == (1, BEGUN, 12)


def test_a_wait_for_room_is_told_and_is_no_crash() -> None:
    begun = (1, "select_host", "RUNNING", 0), (1, "select_host", "WAITING", 1)
    history = History().apply_all(events(*begun, result={"until": "2030-01-01T00:00:00Z", "reason": "0 of 1 host fit."}))
    (run,) = history.runs
    assert (run.state, run.note) == ("WAITING", "for room until 2030-01-01T00:00:00Z (0 of 1 host fit.)")
    told = events(*begun, (1, "select_host", "RESUMED", 5), (1, "select_host", "SUCCESS", 6))
    (run,) = history.apply_all(told).runs
    assert (run.state, run.note, run.resumed, run.seconds(), run.waited_seconds) == ("SUCCESS", "", 0, 6, 4)


def test_an_event_told_twice_counts_once() -> None:
    told = events((1, "claim", "RUNNING", 0), (1, "claim", "SUCCESS", 1))
    history = History().apply_all(told).apply_all(told)
    assert len(history.runs) == 1
    assert history.seq == 2


def test_progress_belongs_to_the_latest_run_of_its_step() -> None:
    history = History().apply_all(events((1, "fetch_image", "RUNNING", 0)))
    run = history.progress("fetch_image", 50, 100, "bytes", BEGUN)
    assert run is history.runs[0]
    assert (run.done, run.total) == (50, 100)
    assert history.progress("spawn", 1, 2, "bytes", BEGUN) is None


def test_states_of_the_flow_are_no_steps() -> None:
    history = History().apply_all(events((0, "", "RUNNING", 0), (0, "", "SUCCESS", 1)))
    assert (history.runs, history.flow_state) == ([], "SUCCESS")
