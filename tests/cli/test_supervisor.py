"""`hullwright up` keeps real processes running: restarts, output, draining. The children here are small Python programs."""

from __future__ import annotations

import io
import os
import re
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from hullwright.cli import supervisor as supervisor_module
from hullwright.cli.supervisor import Child, Supervisor

STAYS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print('ready', flush=True)
signal.sigwait([signal.SIGTERM])
print('drained', flush=True)
"""
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"


def python(name: str, program: str) -> Child:
    """A child that runs a program."""
    return Child(name, [sys.executable, "-c", program])


def test_output_that_is_told_after_the_end_of_its_child_in_one_batch_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script((lambda out: "last words" in out, lambda it: it._stop(signal.SIGTERM, None)))
    inner = selectors.DefaultSelector.select

    def ends_first(selector: selectors.BaseSelector, timeout: float | None = None) -> list[Any]:
        time.sleep(0.3)  # both are there by now
        found = inner(selector, timeout)  # type: ignore[arg-type]
        return sorted(found, key=lambda event: event[0].data is None or event[0].data[1] != "end")

    monkeypatch.setattr(selectors.DefaultSelector, "select", ends_first)
    _, out = script.run(python("short", "print('last words')"))
    assert "short ended with exit code 0" in out


class Script:
    """Sends us signals once the output shows what they wait for."""

    def __init__(self, *acts: tuple[Callable[[str], bool], Callable[[Supervisor], None]]) -> None:
        self.out = io.StringIO()
        self._acts = list(acts)
        self._until = time.monotonic() + 60

    def run(self, *children: Child) -> tuple[int, str]:
        """The exit code and all that was printed."""
        supervised = Supervisor(children, self.out)

        def play() -> None:
            for ready, act in self._acts:
                while not ready(self.out.getvalue()) and time.monotonic() < self._until:
                    time.sleep(0.02)
                act(supervised)

        player = threading.Thread(target=play)
        player.start()
        code = supervised.run()
        player.join()
        return code, self.out.getvalue()


def says(*texts: str) -> Callable[[str], bool]:
    """All of them were printed."""
    return lambda output: all(text in output for text in texts)


def terminate(_: Supervisor) -> None:
    """As Ctrl-C or a service manager would."""
    os.kill(os.getpid(), signal.SIGTERM)


def kill(number: int) -> Callable[[Supervisor], None]:
    """Kill one child, as a crash would."""

    def act(supervised: Supervisor) -> None:
        process = supervised.children[number].process
        assert process is not None
        process.kill()

    return act


def test_a_signal_drains_every_child_and_exits_0() -> None:
    code, output = Script((says("a  | ready", "b  | ready"), terminate)).run(python("a", STAYS), python("b", STAYS))
    assert code == 0
    assert "a  | drained" in output
    assert "b  | drained" in output


def test_a_child_that_is_killed_starts_again() -> None:
    code, output = Script(
        (says("ready"), kill(0)),
        (lambda output: output.count("ready") == 2, terminate),
    ).run(python("a", STAYS))
    assert code == 0
    assert "a was ended by SIGKILL; it starts again in 0.5 s" in output


def test_pauses_between_early_deaths_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE_SECONDS", 0.02)
    _, output = Script((lambda output: output.count("starts again") >= 3, terminate)).run(python("a", "pass"))
    assert [pause in output for pause in ("in 0.02 s", "in 0.04 s", "in 0.08 s")] == [True, True, True]


def test_a_child_that_never_came_up_stops_all_with_1() -> None:
    code, output = Script().run(python("api", "import sys; sys.exit('no such option')"), python("b", STAYS))
    assert code == 1
    assert "no such option" in output
    assert "api ended with exit code 1 before it ever ran" in output


def test_a_second_signal_kills_who_does_not_drain() -> None:
    code, output = Script((says("ready"), terminate), (says("draining"), terminate)).run(python("deaf", DEAF))
    assert code == 1
    assert "deaf was ended by SIGKILL" in output


def test_last_words_without_a_line_end_are_printed() -> None:
    _, output = Script((says("starts again"), terminate)).run(python("a", "print('half a line', end='')"))
    assert "a  | half a line" in output


def test_a_grandchild_that_holds_the_pipe_does_not_hide_a_death() -> None:
    orphaning = "import subprocess, sys\nprint('grandchild', subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    begun = time.monotonic()
    _, output = Script((says("starts again"), terminate)).run(python("a", orphaning))
    lasted = time.monotonic() - begun
    for pid in re.findall(r"grandchild (\d+)", output):
        os.kill(int(pid), signal.SIGKILL)
    assert lasted < 30, "it did not wait for the grandchild"
