"""A build's events as they happen: server-sent events (the HTML standard's text/event-stream).

Step events carry their number as id, so a client that comes back with Last-Event-ID goes on without gaps or repeats. `state` and
`progress` tell the present and carry none. The database is asked in short intervals, with one small statement while nothing happens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from hullwright.api.builds.views import event_view, is_at_rest, progress_view, state_view
from hullwright.objects.errors import Unavailable
from hullwright.persistence import builds, events
from hullwright.persistence.builds import Pulse
from hullwright.persistence.database import Database, DatabaseUnavailable

LOG = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
_RETRY_MS = 1000  # how soon a client comes back when the connection breaks
_THREADS_LEFT_FREE = 2


class TooManyStreams(Unavailable):
    """Every place for a stream is taken."""

    message = "All {limit} streams of events are in use."
    is_for_users = True
    hint = "Ask for the events in intervals: GET /v1/builds/{id}/events?after=N."


class Streams:
    """The streams of one process: at most so many, and all of them end when the process does."""

    def __init__(self, db: Database, conf: Any, stopping: threading.Event) -> None:
        """Read the limits. Once `stopping` is set all streams end at their next look; their clients come back, to whoever serves then."""
        self._db = db
        self._options = conf.builds
        self.limit = max(1, min(conf.builds.max_streams, conf.api.threads - _THREADS_LEFT_FREE)) if conf.builds.max_streams else 0
        self._places = threading.Semaphore(self.limit)
        self._stopping = stopping

    def open(self, job_uuid: str, after: int, *, admin: bool) -> Stream:
        """A stream of the build's events behind number `after`.

        Raises: TooManyStreams.
        """
        if self._stopping.is_set() or not self._places.acquire(blocking=False):
            raise TooManyStreams(limit=self.limit)
        return Stream(_follow(self._db, self._options, job_uuid, after, admin, self._stopping), self._places.release)


class Stream:
    """One stream's bytes. Closing it gives its place back, also when nothing of it was ever read."""

    def __init__(self, chunks: Iterator[bytes], release: Callable[[], None]) -> None:
        """`release` is called once."""
        self._chunks = chunks
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        """Itself."""
        return self

    def __next__(self) -> bytes:
        """The next bytes; blocks until there are some."""
        try:
            return next(self._chunks)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the place back."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __del__(self) -> None:
        """A stream that the server dropped."""
        self.close()


def _follow(db: Database, options: Any, job_uuid: str, after: int, admin: bool, stopping: threading.Event) -> Iterator[bytes]:
    """The bytes of a stream: what was missed, then what happens, until the job rests."""
    seen: Pulse | None = None
    seq = after
    ends_at = time.monotonic() + options.max_stream_seconds
    spoke_at = time.monotonic()
    yield f"retry: {_RETRY_MS}\n\n".encode()
    while time.monotonic() < ends_at and not stopping.is_set():
        news: list[bytes] = []
        try:
            with db.read() as conn:
                pulse = builds.pulse(conn, job_uuid)
                if pulse is None:
                    return
                if seen is None or _state(pulse) != _state(seen):
                    news.append(_event("state", state_view(job_uuid, pulse)))
                if pulse.seq > seq:
                    # One more may have been written since the pulse: it is told now, and its state with the next pulse.
                    for event in events.list_since(conn, job_uuid, seq):
                        news.append(_event("step", event_view(event, admin=admin), event.seq))
                        seq = event.seq
                if pulse.progress_at and (seen is None or pulse.progress_at != seen.progress_at):
                    since = seen.progress_at if seen is not None else 0.0
                    told = [each for each in events.list_progress(conn, job_uuid) if each.at > since]
                    news.extend(_event("progress", progress_view(each)) for each in told)
        except DatabaseUnavailable as error:
            LOG.warning("stream of build %s waits: %s", job_uuid, error)  # the record is not lost, only late
            pulse = seen
        seen = pulse
        if pulse is not None and is_at_rest(pulse.state) and seq >= pulse.seq:
            yield b"".join([*news, _event("end", state_view(job_uuid, pulse))])
            return
        if news:
            spoke_at = time.monotonic()
            yield b"".join(news)
        elif time.monotonic() - spoke_at >= options.keepalive_seconds:
            spoke_at = time.monotonic()
            yield b": still here\n\n"
        stopping.wait(options.poll_seconds)


def _state(pulse: Pulse) -> tuple[str, int, bool]:
    return pulse.state, pulse.progress, pulse.cancel_requested


def _event(name: str, data: Any, id: int | None = None) -> bytes:
    """One event: its data is JSON on one line."""
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
