"""The fence that the thread of a step or a round stands behind. It carries it into drivers and stores, so that they too act only while the
job is ours.

A thread may be stopped for any time between a door that was passed and what is done behind it. So whoever has an effect asks once more:
a driver just before it (`check`), a write transaction inside itself (`prove`). Threads that run no job carry no fence and may do all.
Not for: who holds a job; see `persistence.jobs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class Fence(Protocol):
    """Says whether a thread's job is still its conductor's."""

    def check(self) -> None:
        """Without asking anybody, by this process's own clock. Raises: LeaseLost."""

    def prove(self, connection: Any) -> None:
        """In a write transaction: from now to its commit nobody can take the job. Raises: LeaseLost."""


_current: ContextVar[Fence | None] = ContextVar("fence", default=None)


@contextmanager
def standing_behind(fence: Fence | None) -> Iterator[None]:
    """Carry the fence in this thread meanwhile; None: carry none."""
    token = _current.set(fence)
    try:
        yield
    finally:
        _current.reset(token)


def check() -> None:
    """For drivers, just before an effect. Raises: LeaseLost."""
    fence = _current.get()
    if fence is not None:
        fence.check()


def prove(connection: Any) -> None:
    """For write transactions, at their beginning. Raises: LeaseLost."""
    fence = _current.get()
    if fence is not None:
        fence.prove(connection)
