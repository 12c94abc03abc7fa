"""Keeps child processes running in the foreground of one terminal: starts, restarts, passes on their output, drains.

Not for: what the children do. One thread and one selector; a child's death is seen through its pidfd, so that a grandchild that holds
on to the pipe cannot hide it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TextIO

FIRST_PAUSE_SECONDS = 0.5  # before the first restart; doubles with each early death
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # one that lived as long starts over with the first pause
START_SECONDS = 5.0  # one that dies sooner than that in its first life was never going to run

_COLOURS = ("36", "33", "32", "35", "34")


@dataclass
class Child:
    """A process to keep running."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    started_at: float = 0.0
    lives: int = 0
    early_deaths: int = 0
    restart_at: float | None = None
    partial: bytes = b""


class Supervisor:
    """Runs children until it is told to stop."""

    def __init__(self, children: Sequence[Child], out: TextIO) -> None:
        """`out`: where the children's lines go, each with its child's name."""
        self.children = list(children)
        self._out = out
        self.on_tick: Callable[[], None] | None = None  # about ten times a second while all is well
        self._selector = selectors.DefaultSelector()
        self._width = max(len(name) for name in ("up", *(child.name for child in self.children)))
        self._stops = 0  # signals so far: the first drains, the second kills
        self._acted_on = 0
        self._failed = False

    def run(self) -> int:
        """Keep the children running until SIGINT or SIGTERM, then drain.

        Must be called in the main thread. Returns: 0 when every child drained; 1 when one never came up or had to be killed.
        """
        waker, wake_up = os.pipe()
        os.set_blocking(wake_up, False)
        self._selector.register(waker, selectors.EVENT_READ, None)
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        wakeup_before = signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
        try:
            for child in self.children:
                self._start(child)
            while not self._stops or self._alive():
                self._turn(waker)
        finally:
            for child in self._alive():
                self._signal(child, signal.SIGKILL)
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(waker)
            os.close(wake_up)
        return 1 if self._failed else 0

    def say(self, text: str) -> None:
        """A line of our own among the children's."""
        self._line("up", text, "1")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1

    def _alive(self) -> list[Child]:
        return [child for child in self.children if child.process is not None]

    def _turn(self, waker: int) -> None:
        for key, _ in self._selector.select(timeout=0.1):
            if key.fd == waker:
                os.read(waker, 512)
            elif key.data[1] == "output":
                self._read(key.data[0])
            else:
                self._buried(key.data[0])
        if self._stops > self._acted_on:
            self._acted_on = self._stops
            self._begin_to_stop()
        if not self._stops:
            for child in self.children:
                if child.restart_at is not None and time.monotonic() >= child.restart_at:
                    self._start(child)
        if self.on_tick is not None and not self._stops:
            self.on_tick()

    def _start(self, child: Child) -> None:
        child.restart_at = None
        child.lives += 1
        child.started_at = time.monotonic()
        child.process = subprocess.Popen(
            list(child.argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(os.environ) | dict(child.environment),
            start_new_session=True,  # Ctrl-C reaches us alone, and a kill reaches its children too
        )
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, (child, "output"))
        child.pidfd = os.pidfd_open(child.process.pid)
        self._selector.register(child.pidfd, selectors.EVENT_READ, (child, "end"))

    def _read(self, child: Child) -> None:
        if child.process is None or child.process.stdout is None or child.process.stdout.closed:
            return  # told in the same batch as its end, which has read it out
        try:
            data = os.read(child.process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(child.process.stdout)
            child.process.stdout.close()
            return
        *lines, child.partial = (child.partial + data).split(b"\n")
        for line in lines:
            self._print(child, line)

    def _print(self, child: Child, line: bytes) -> None:
        colour = _COLOURS[self.children.index(child) % len(_COLOURS)]
        self._line(child.name, line.decode(errors="replace").rstrip(), colour)

    def _line(self, name: str, text: str, colour: str) -> None:
        head = f"{name:<{self._width}} | "
        self._out.write(f"\033[{colour}m{head}\033[0m{text}\n" if self._out.isatty() else f"{head}{text}\n")
        self._out.flush()

    def _buried(self, child: Child) -> None:
        """Take note of a death: its last words, why, and when to start it again."""
        process = child.process
        assert process is not None
        assert process.stdout is not None
        code = process.wait()
        while not process.stdout.closed:
            before = child.partial
            self._read(child)
            if not process.stdout.closed and child.partial == before:
                self._selector.unregister(process.stdout)  # a grandchild holds it open
                process.stdout.close()
        if child.partial:
            self._print(child, child.partial)
            child.partial = b""
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        child.process = None
        lived = time.monotonic() - child.started_at
        how = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        if self._stops:
            self._failed |= code == -signal.SIGKILL
            self.say(f"{child.name} has stopped" if code in (0, -signal.SIGTERM) else f"{child.name} {how}")
        elif child.lives == 1 and lived < START_SECONDS and code > 0:
            self.say(f"{child.name} {how} before it ever ran: stopping")
            self._failed = True
            self._stops += 1
        else:
            child.early_deaths = 0 if lived > STEADY_SECONDS else child.early_deaths + 1
            pause = min(FIRST_PAUSE_SECONDS * 2 ** max(0, child.early_deaths - 1), LONGEST_PAUSE_SECONDS)
            child.restart_at = time.monotonic() + pause
            self.say(f"{child.name} {how}; it starts again in {pause:g} s")

    def _begin_to_stop(self) -> None:
        alive = self._alive()
        if self._stops == 1 and alive:
            self.say("draining: steps under way end, the rest resumes at the next start (Ctrl-C again kills)")
        for child in alive:
            self._signal(child, signal.SIGTERM if self._stops == 1 else signal.SIGKILL)

    def _signal(self, child: Child, number: signal.Signals) -> None:
        assert child.process is not None
        try:
            if number == signal.SIGKILL:
                os.killpg(child.process.pid, number)
            else:
                child.process.send_signal(number)
        except ProcessLookupError:
            pass


def python_child(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
    """A child that runs this same program with other arguments."""
    argv = [sys.executable, "-m", "hullwright.cli.main", *arguments]
    return Child(name, argv, {"PYTHONUNBUFFERED": "1"} | dict(environment))
