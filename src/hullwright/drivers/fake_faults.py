"""For tests and benchmarks: what goes wrong on a fake host, read from a JSON file that may change at any time.

`faults.json` in the host's directory holds `{"rules": [...]}`; it is read again when it changes. A rule:

    operation    facts, ensure_image, spawn, destroy, power_state, guests, leftovers, power_on, power_off, reboot,
                 console_log, plug, unplug, create_volume, delete_volume, connect, disconnect,
                 half_images, discard_half_image, damaged_images, evict_image; a list of them; or "*"
    when         before (default), after, or during: between two halves of the effect, where there are two (in
                 ensure_image after each chunk, in spawn between define and resume)
    uuid         only calls about this instance, image or volume
    nth          only the nth matching call, counted over all processes
    first        only the first so many matching calls, counted over all processes
    probability  only this share of the calls
    delay        seconds to sleep; [low, high]: uniform between them
    error        name of a class of objects.errors, or a built-in exception, to raise; `reason` is its text
    kill         true: SIGKILL to the calling process
    hang         true: do not go on until the rule is gone from the file

A rule does what it has of delay, hang, kill, error, in this order. Several rules may match one call.
Not for: what a call does when nothing goes wrong.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hullwright.objects import errors

HANG_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that goes wrong; the module's docstring explains the fields."""

    operation: str | tuple[str, ...]
    when: str = "before"
    uuid: str | None = None
    nth: int | None = None
    first: int | None = None
    probability: float | None = None
    delay: float | tuple[float, float] | None = None
    error: str | None = None
    reason: str = "injected"
    kill: bool = False
    hang: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the file."""
        default = Rule(operation="*")
        return {key: value for key, value in asdict(self).items() if key == "operation" or value != getattr(default, key)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        """Raises: ValueError for a rule that cannot be meant."""
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        try:
            rule = cls(**fields)
        except TypeError as error:
            raise ValueError(f"bad fault rule {dict(data)}: {error}") from error
        if rule.when not in ("before", "during", "after"):
            raise ValueError(f"bad fault rule {dict(data)}: when must be before, during or after")
        if rule.error is not None:
            _error_class(rule.error)
        return rule

    @property
    def key(self) -> str:
        """Names the rule's counter."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def concerns(self, operation: str, when: str, uuid: str) -> bool:
        """True when a call is of the kind that this rule is about."""
        wanted = (self.operation,) if isinstance(self.operation, str) else self.operation
        return self.when == when and ("*" in wanted or operation in wanted) and self.uuid in (None, uuid)


def _error_class(name: str) -> type[Exception]:
    found = getattr(errors, name, None) or getattr(builtins, name, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        raise ValueError(f"bad fault rule: there is no error {name}")
    return found


class Faults:
    """The rules of one fake host, kept current with the file."""

    def __init__(self, directory: Path, host: str) -> None:
        self.file = directory / "faults.json"
        self._counters = directory / "counters"
        self._host = host
        self._seen: tuple[int, int, int] | None = None
        self._rules: tuple[Rule, ...] = ()

    def write(self, rules: Sequence[Rule]) -> None:
        """Put these rules in force, in every process, and begin their counts anew."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        for rule in rules:
            (self._counters / rule.key).unlink(missing_ok=True)
        scratch = self.file.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps({"rules": [rule.to_dict() for rule in rules]}, indent=1))
        scratch.replace(self.file)

    def rules(self) -> tuple[Rule, ...]:
        """The rules in force now.

        Raises: ValueError when the file makes no sense.
        """
        try:
            status = os.stat(self.file)
        except FileNotFoundError:
            self._seen, self._rules = None, ()
            return ()
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen != self._seen:
            found = json.loads(self.file.read_text())
            self._rules = tuple(Rule.from_dict(rule) for rule in found["rules"])
            self._seen = seen
        return self._rules

    def strike(self, operation: str, when: str, uuid: str) -> None:
        """Let happen what the rules want at this point of a call."""
        for rule in self.rules():
            if rule.concerns(operation, when, uuid) and self._due(rule):
                self._happen(rule, operation, uuid)

    def _due(self, rule: Rule) -> bool:
        if rule.probability is not None and random.random() >= rule.probability:
            return False
        if rule.nth is None and rule.first is None:
            return True
        count = self._count(rule)
        return count == rule.nth or (rule.first is not None and count <= rule.first)

    def _count(self, rule: Rule) -> int:
        """Which call this is, from 1: the end of a file after one byte was appended tells it to one caller only."""
        self._counters.mkdir(exist_ok=True)
        handle = os.open(self._counters / rule.key, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, b".")
            return os.lseek(handle, 0, os.SEEK_CUR)
        finally:
            os.close(handle)

    def _happen(self, rule: Rule, operation: str, uuid: str) -> None:
        if rule.delay is not None:
            time.sleep(rule.delay if isinstance(rule.delay, int | float) else random.uniform(*rule.delay))
        while rule.hang and rule in self.rules():
            time.sleep(HANG_POLL_SECONDS)
        if rule.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if rule.error is not None:
            kind = _error_class(rule.error)
            if issubclass(kind, errors.HullwrightError):
                about = dict.fromkeys(("instance", "image", "volume", "port"), uuid)
                raise kind(reason=rule.reason, host=self._host, operation=operation, **about)
            raise kind(rule.reason)
