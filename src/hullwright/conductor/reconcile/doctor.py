"""Looks, looks again, and mends: the one way in which drift is found and repaired, by the conductor and by hand.

A finding counts when two looks have it with the grace period between them. Each repair checks it once more in its own transaction, in
which nobody can begin to work on the instance, and leaves a `reconcile` entry in the instance's actions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection, RowMapping

from hullwright.conductor.reconcile import checks, power
from hullwright.conductor.reconcile.findings import KINDS, Finding, Outcome
from hullwright.conductor.reconcile.repairs import OUTRUN, REPAIRS, Repair
from hullwright.conductor.reconcile.view import Answer, View, ask_hosts, ask_images, open_work, ref_of, wanting_image
from hullwright.conf import image as image_options
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.drivers.registry import Drivers
from hullwright.drivers.virt.contract import VirtDriver
from hullwright.objects.errors import HullwrightError, InstanceNotFound
from hullwright.objects.states import OPEN_JOB_STATES
from hullwright.persistence import actions, hosts, instances, jobs
from hullwright.persistence.database import Database, now

LOG = logging.getLogger(__name__)
ACTION = "reconcile"
MESSAGE_MAX = 255  # characters of an action's message
_STANDING_TOLD = 10  # names of what stands on a damaged image


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    findings: tuple[Finding, ...]
    silent: Mapping[str, str]  # host -> why it could not be asked
    answers: Mapping[str, Answer]
    began_at: float
    since: float | None = None  # see `View`
    known_before: Mapping[str, float] = dataclasses.field(default_factory=dict)  # see `View`

    def keys(self) -> dict[str, float]:
        """Key of each finding -> since when."""
        return {finding.key: finding.since or self.began_at for finding in self.findings}

    def confirming(self, earlier: Mapping[str, float]) -> Look:
        """What an earlier look had found too, known since then."""
        held = tuple(
            dataclasses.replace(finding, since=finding.since or earlier[finding.key]) for finding in self.findings if finding.key in earlier
        )
        return dataclasses.replace(self, findings=held)


class Doctor:
    """Finds and mends drift of one installation. Cheap to make; holds nothing."""

    def __init__(self, db: Database, drivers: Drivers, conf: Any) -> None:
        """`drivers`: those of this process, closed by their owner."""
        self._db = db
        self._drivers = drivers
        self._conf = conf
        self._images = ImageDirectory(image_options.directory(conf)) if conf.image.driver == "local" else None

    # --- Looking ---------------------------------------------------------------------------------------------------------

    def look(
        self,
        *,
        names: Collection[str] | None = None,
        kinds: Collection[str] = tuple(KINDS),
        since: float | None = None,
        deep: bool = False,
        images: Collection[str] | None = None,
    ) -> Look:
        """One look at the records and at the hosts, or at those `names` only, whose findings alone are told then.

        `since`: see `View`; None: by hand, base images included. Of these, `images` only; `deep`: all are read back.
        Raises: DatabaseUnavailable.
        """
        with self._db.read() as conn:
            known = [host for host in hosts.list_all(conn) if names is None or host.name in names]
        up = [host for host in known if not host.forced_down]
        damaged: Mapping[str, Mapping[str, str]] = {}
        unread: Mapping[str, str] = {}
        if since is None and "base_image_damaged" in kinds:  # before all else: it may take long
            damaged, unread = ask_images(self._drivers, up, self._conf, deep=deep, only=images)
        began_at = now()
        with self._db.read() as conn:
            busy = self._busy(conn)
            known_before = _updated_at(power.known(conn)) if "power_state_wrong" in kinds else {}
        answers, silent = ask_hosts(self._drivers, up, self._conf)
        answers = {name: dataclasses.replace(answer, damaged_images=damaged.get(name, {})) for name, answer in answers.items()}
        silent = {**unread, **silent} | {host.name: "it was forced down" for host in known if host.forced_down}
        with self._db.snapshot() as conn:
            view = View(
                conn,
                answers,
                began_at=began_at,
                busy_before=busy,
                known_before=known_before,
                uploading=self._is_uploading,
                since=since,
            )
            found = tuple(checks.run(view, [kind for kind in checks.CHECKS if kind in kinds]))
        if names is not None:
            found = tuple(finding for finding in found if finding.host in names)
        return Look(found, silent, answers, began_at, since, known_before)

    def examine(
        self, *, grace_seconds: float, names: Collection[str] | None = None, kinds: Collection[str] = tuple(KINDS), deep: bool = False
    ) -> Look:
        """Look twice by hand; what both looks have.

        Raises: DatabaseUnavailable.
        """
        first = self.look(names=names, kinds=kinds, deep=deep)
        if not first.findings:
            return first
        time.sleep(grace_seconds)
        images = {finding.subject for finding in first.findings if finding.kind == "base_image_damaged"}
        return self.look(names=names, kinds=kinds, deep=deep, images=images).confirming(first.keys())

    def _busy(self, conn: Connection) -> set[str]:
        return {job.instance_uuid for job in open_work(conn) if job.instance_uuid is not None}

    def _is_uploading(self, image_id: str) -> bool:
        return self._images is not None and self._images.is_being_written(image_id)

    # --- Mending ---------------------------------------------------------------------------------------------------------

    def mend(self, look: Look, *, kinds: Collection[str], with_consent: bool = False, request_id: str) -> list[Outcome]:
        """Mend what a look has confirmed, as far as it is of these kinds; the rest is told as found.

        `with_consent`: also what might be somebody's after all.
        Raises: DatabaseUnavailable; what was mended until then is mended.
        """
        run = Repair(request_id)
        outcomes = []
        for finding in look.findings:
            if finding.kind not in kinds:
                outcomes.append(Outcome(finding, "found"))
            elif not KINDS[finding.kind].is_mendable:
                outcomes.append(Outcome(finding, "refused", f"nothing mends it safely: {finding.repair}"))
            elif KINDS[finding.kind].needs_consent and not with_consent:
                outcomes.append(Outcome(finding, "refused", "it might be somebody's after all: nothing is done without consent"))
            else:
                outcomes.append(self._mend(run, look, finding))
        return outcomes

    def _mend(self, run: Repair, look: Look, finding: Finding) -> Outcome:
        try:
            by_its_host = {"base_image_half": self._discard_image, "base_image_damaged": self._evict_image}.get(finding.kind)
            outcome = by_its_host(finding) if by_its_host is not None else self._repair(run, look, finding)
        except OUTRUN as error:
            outcome = Outcome(finding, "gone", f"somebody was quicker: {error}")
        except HullwrightError as error:
            outcome = Outcome(finding, "failed", error.text)
        LOG.warning(
            "%s %s%s: %s: %s%s",
            finding.kind,
            finding.subject,
            f" on {finding.host}" if finding.host else "",
            finding.evidence,
            outcome.state,
            f" ({outcome.text})" if outcome.text else "",
        )
        return outcome

    def _repair(self, run: Repair, look: Look, finding: Finding) -> Outcome:
        with self._db.write() as conn:
            row = None
            if finding.instance_uuid is not None:
                with contextlib.suppress(InstanceNotFound):
                    # Whoever wants to begin work on the instance changes this row first, and waits for us.
                    row = instances.get_row(conn, finding.instance_uuid, deleted=True, for_update=True)
            fresh = self._check_again(conn, run, look, finding)
            if fresh is None:
                return Outcome(finding, "gone", "it is not so any more")
            text, job_uuid = REPAIRS[finding.kind](run, conn, fresh)
            if row is not None:
                self._record(conn, run, finding, row, text)
        return Outcome(finding, "posted" if job_uuid else "mended", text, job_uuid)

    def _check_again(self, conn: Connection, run: Repair, look: Look, finding: Finding) -> Finding | None:
        view = View(
            conn,
            look.answers,
            began_at=look.began_at,
            known_before=look.known_before,
            uploading=self._is_uploading,
            only=finding.subject,
            not_counting=run.posted,
            since=look.since,
        )
        return next((found for found in checks.run(view, [finding.kind]) if found.key == finding.key), None)

    def _discard_image(self, finding: Finding) -> Outcome:
        """The host's own protocol for transfers tells whether somebody is at it; no transaction of ours could."""
        if self._virt_of(finding).discard_half_image(finding.subject):
            return Outcome(finding, "mended", "deleted")
        return Outcome(finding, "gone", "somebody went on with it")

    def _evict_image(self, finding: Finding) -> Outcome:
        """The host knows what stands on the image; what is about to, the records know."""
        with self._db.read() as conn:
            builds = wanting_image(conn, finding.subject)
        if builds:
            return Outcome(finding, "refused", f"servers are being built from it: {', '.join(builds)}; try again when they are done")
        standing = self._virt_of(finding).evict_image(finding.subject)
        if standing is None:
            return Outcome(finding, "gone", "it is whole, or somebody is at it")
        if standing:
            told = ", ".join(standing[:_STANDING_TOLD]) + (", ..." if len(standing) > _STANDING_TOLD else "")
            advice = "rebuild those servers from what is sound, delete them, and try again"
            return Outcome(finding, "refused", f"{len(standing)} disks or guests stand on it ({told}): {advice}")
        return Outcome(finding, "mended", "put away; the next build has it fetched anew")

    def _virt_of(self, finding: Finding) -> VirtDriver:
        with self._db.read() as conn:
            return self._drivers.virt(ref_of(hosts.get(conn, str(finding.host))))

    @staticmethod
    def _record(conn: Connection, run: Repair, finding: Finding, row: RowMapping, text: str) -> None:
        """The repair in the instance's own history."""
        entry = actions.new_row(
            instance_uuid=row["uuid"],
            action=ACTION,
            request_id=run.request_id,
            project_id=row["project_id"],
            user_id=ACTION,
            job_uuid=None,
        )
        actions.start_rows(conn, [entry | {"message": f"{finding.kind}: {finding.evidence}: {text}"[:MESSAGE_MAX]}])


def _updated_at(known: Mapping[str, Mapping[str, power.Known]]) -> dict[str, float]:
    return {uuid: row.updated_at for of_host in known.values() for uuid, row in of_host.items()}


def told(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Outcomes for a job's result."""
    return [
        {
            "kind": outcome.finding.kind,
            "subject": outcome.finding.subject,
            "host": outcome.finding.host,
            "instance_uuid": outcome.finding.instance_uuid,
            "since": outcome.finding.since,
            "evidence": outcome.finding.evidence,
            "repair": outcome.finding.repair,
            "state": outcome.state,
            "text": outcome.text,
            "job_uuid": outcome.job_uuid,
        }
        for outcome in outcomes
    ]


def open_jobs(conn: Connection, uuids: Sequence[str]) -> Iterator[str]:
    """Those of the jobs that have not ended."""
    for uuid in uuids:
        with contextlib.suppress(jobs.JobNotFound):
            if jobs.get(conn, uuid).state in OPEN_JOB_STATES:
                yield uuid
