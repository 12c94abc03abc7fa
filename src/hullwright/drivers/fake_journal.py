"""For tests and benchmarks: things that several processes share by one append-only file, which is also the record of effects.

Each line is one change, in JSON: at (seconds since the epoch), pid, operation (None: a change that is nobody's effect), uuid,
room, key, thing (None: gone). Every process replays the lines that it has not seen, so a call costs some ten microseconds
however many things there are; writers take turns by flock. A process that is killed leaves whole lines, or a torn last one,
which the next writer cuts off.
Not for: surviving a power cut; nothing is synced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from hullwright.objects import fence

Thing = dict[str, Any]
_opened: dict[tuple[int, Path], Journal] = {}
_opening = threading.Lock()


def journal_at(path: Path) -> Journal:
    """This process's journal of a file: one per path, so that its lines are replayed once."""
    with _opening:
        key = (os.getpid(), path)  # a forked child must not share the parent's lock
        if key not in _opened:
            _opened[key] = Journal(path)
        return _opened[key]


def close_all(directory: Path) -> None:
    """Close, and forget, what this process has open below a directory; whoever still has such a journal opens it again by using it."""
    with _opening:
        for key in [key for key in _opened if directory in key[1].parents]:
            _opened.pop(key).close()


class Journal:
    """Rooms of things by key. Safe to use from many threads; see `journal_at`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.RLock()
        self._descriptor = -1
        self._seen = 0  # bytes replayed
        self._rooms: dict[str, dict[str, Thing]] = {}

    def make(self, room: str, key: str, thing: Thing, operation: str | None) -> bool:
        """Have the thing; False when one was there, which then stays as it was."""
        with self._writing():
            if key in self._rooms.get(room, ()):
                return False
            self._append(room, key, thing, operation)
            return True

    def put(self, room: str, key: str, thing: Thing, operation: str | None) -> None:
        """Have the thing just so, replacing what was there."""
        with self._writing():
            self._append(room, key, thing, operation)

    def change(self, room: str, key: str, changes: Mapping[str, Any], operation: str | None) -> bool:
        """Change members of a thing; False when it is not there, or has them so already."""
        with self._writing():
            thing = self._rooms.get(room, {}).get(key)
            if thing is None or all(thing.get(name) == value for name, value in changes.items()):
                return False
            self._append(room, key, {**thing, **changes}, operation)
            return True

    def drop(self, room: str, key: str, operation: str | None) -> bool:
        """Have the thing gone; False when it was."""
        with self._writing():
            if key not in self._rooms.get(room, ()):
                return False
            self._append(room, key, None, operation)
            return True

    def get(self, room: str, key: str) -> Thing | None:
        """The thing, or None; not to be changed."""
        with self._mutex:
            self._replay()
            return self._rooms.get(room, {}).get(key)

    def all(self, room: str) -> dict[str, Thing]:
        """Every thing of a room by key, in the order in which they were made."""
        with self._mutex:
            self._replay()
            return dict(self._rooms.get(room, {}))

    def lines(self) -> list[dict[str, Any]]:
        """The whole file, oldest first."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return [orjson.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._mutex:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._mutex:
            self._replay()  # opens the file
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                if self._replay():
                    os.ftruncate(self._descriptor, self._seen)
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _append(self, room: str, key: str, thing: Thing | None, operation: str | None) -> None:
        fence.check()
        uuid = key if thing is None else thing.get("uuid", key)
        line = orjson.dumps(
            {
                "at": time.time(),
                "pid": os.getpid(),
                "operation": operation,
                "uuid": uuid,
                "room": room,
                "key": key,
                "thing": thing,
            }
        )
        self._seen += os.write(self._descriptor, line + b"\n")
        self._apply(room, key, thing)

    def _apply(self, room: str, key: str, thing: Thing | None) -> None:
        if thing is None:
            self._rooms.get(room, {}).pop(key, None)
        else:
            self._rooms.setdefault(room, {})[key] = thing

    def _replay(self) -> bool:
        """Catch up with the file; True when it ends in a torn line, which to a writer is a killed one's."""
        status = os.fstat(self._descriptor) if self._descriptor >= 0 else None
        if status is None or status.st_nlink == 0 or status.st_size < self._seen:
            status = self._open()
        if status.st_size == self._seen:
            return False
        data = os.pread(self._descriptor, status.st_size - self._seen, self._seen)
        whole = data.rfind(b"\n") + 1
        for text in data[:whole].splitlines():
            line = orjson.loads(text)
            self._apply(line["room"], line["key"], line["thing"])
        self._seen += whole
        return whole < len(data)

    def _open(self) -> os.stat_result:
        """Open the file, anew when somebody removed it, and begin from nothing."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._seen = 0
        self._rooms = {}
        return os.fstat(self._descriptor)
