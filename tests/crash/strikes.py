"""What happens to a process of the harness at a boundary, besides SIGKILL. Runs inside the child process.

Each strike tells the parent that the process stands there, by a file beside its trace (`.halted`), and goes on when the parent wants: at
SIGCONT, or once there is a file `.woken`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any

from hullwright.conductor.heartbeat import Heartbeat
from hullwright.conductor.intake import Intake
from hullwright.drivers import fake_journal
from hullwright.drivers.virt.fake import driver as fake_driver
from hullwright.objects.builds import Job
from support.boundaries import Boundaries

_POLL_SECONDS = 0.01


def stall(boundaries: Boundaries, _what: str, *, is_locked: bool) -> None:
    """Stop the whole process until it is continued."""
    boundaries.act_no_more()
    # When whoever began this run ends, the kernel continues all of its group that are stopped, for then nobody else would. Not this one.
    os.setpgid(0, 0)
    with contextlib.ExitStack() as held:
        # What another thread of ours is about to write to a fake host must not keep everybody from that host: no real one has such a lock.
        for journal in [*fake_journal._opened.values()]:
            held.enter_context(journal._mutex)
        if not is_locked:  # else, on SQLite, another thread of ours might stop the whole world from inside a transaction of its own
            for database in boundaries.databases:
                held.enter_context(database._writer)
        _tell(boundaries, is_locked)
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # to this thread, so that it is the first to stop


def hang(boundaries: Boundaries, _what: str, *, is_locked: bool) -> None:
    """Do not come back for as long as the parent wants; then tell it when this thread, and that of its job, have ended (`.ended`)."""
    threads = {threading.current_thread(), *(thread for thread in threading.enumerate() if thread.name.startswith("job-"))}

    def watch() -> None:
        for thread in threads:
            thread.join()
        boundaries.trace.with_suffix(".ended").touch()

    threading.Thread(target=watch, daemon=True).start()
    wait(boundaries, _what, is_locked=is_locked)


def wait(boundaries: Boundaries, _what: str, *, is_locked: bool) -> None:
    """Stand here until the parent has done something."""
    _tell(boundaries, is_locked)
    while not boundaries.trace.with_suffix(".woken").exists():
        time.sleep(_POLL_SECONDS)


def _tell(boundaries: Boundaries, is_locked: bool) -> None:
    scratch = boundaries.trace.with_suffix(".new")
    scratch.write_text(json.dumps({"at": boundaries.struck_at, "is_locked": is_locked}))
    scratch.rename(boundaries.trace.with_suffix(".halted"))


def look_seldom(boundaries: Boundaries) -> None:
    """Have a conductor look once for jobs of others that died, and not again before the strike: looks by the clock have no numbers.

    One that had to wait for a processor for longer than its lease looks again, for its own.
    """
    inner, inner_good, known, starved = Intake.take, Heartbeat.is_good, "", False

    def is_good(heartbeat: Heartbeat, owner: str | None) -> bool:
        nonlocal starved
        good = inner_good(heartbeat, owner)
        starved = starved or not good
        return good

    def take(intake: Intake, owner: str, driven: Collection[str], cleanings: int) -> list[Job]:
        nonlocal known, starved
        life = f"{owner} {boundaries.has_struck}"
        if life != known or starved:
            known, starved, intake.look_for_orphans_at = life, False, 0.0
        taken = inner(intake, owner, driven, cleanings)
        if not boundaries.has_struck:
            intake.look_for_orphans_at = math.inf
        return taken

    Intake.take = take  # type: ignore[method-assign]
    Heartbeat.is_good = is_good  # type: ignore[method-assign]


def share_images() -> None:
    """Have no transfer of an image keep others from it. On a fake host a lock does, for as long as its holder's process is there; on a real
    one a holder that makes no progress is passed by (`virt/libvirt/image_cache.py`).
    """

    @contextlib.contextmanager
    def not_alone(*_args: Any, **_kwargs: Any) -> Iterator[bool]:
        yield True

    fake_driver.alone_with_image = not_alone  # type: ignore[assignment]
