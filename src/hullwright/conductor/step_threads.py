"""Threads for the steps of one job that run side by side: one for each, so that a call which never returns keeps no other step from its
thread.

They are daemons: nor does such a call keep the process from ending, as the threads of the standard library's pool do.
Not for: bounding how many there are; a graph's width and the number of jobs do that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any


class StepThreads(Executor):
    """An executor that begins whatever it is given at once."""

    def __init__(self) -> None:
        self._begun: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it done in a thread of its own."""
        future: Future[Any] = Future()
        self._begun.append(future)
        threading.Thread(target=_do, args=(future, fn, args, kwargs), name="step", daemon=True).start()
        return future

    def await_all(self) -> None:
        """Wait until all that was begun has ended."""
        wait(self._begun)


def _do(future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001  whoever waits for the future is told
        future.set_exception(error)
    else:
        future.set_result(result)
