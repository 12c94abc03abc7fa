"""Scheduler: one host and its alternates for a request, with the reasons of the hosts that were not it.

Filters take hosts away, weighers order the rest. What is chosen is not claimed yet: `claim` does that, exactly.
Not for: what a filter or weigher looks at; each is a file of its own.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hullwright.objects.errors import NoValidHost
from hullwright.objects.instances import RequestSpec
from hullwright.objects.placement import Explanation, HostVerdict, PlacementReport, Rejection, Selection
from hullwright.persistence.database import Database, now
from hullwright.scheduler import filters, weighers
from hullwright.scheduler.columns import Columns, Integers, Mask
from hullwright.scheduler.demand import demand
from hullwright.scheduler.filters import Filter, capacity, destination, retry
from hullwright.scheduler.relations import RelationReader
from hullwright.scheduler.request import Request
from hullwright.scheduler.shortage import Shortage
from hullwright.scheduler.snapshot import Snapshot
from hullwright.scheduler.surroundings import Surroundings
from hullwright.scheduler.weighing import Weighed, about_as_good, among_others, best, of_turn, weigh

REASONS_MAX = 12  # told in a report; the hosts of the rest are counted together
SAMPLE_MAX = 5  # hosts named per reason
CANDIDATES_MAX = 10  # hosts named with their weights
_LOOK_SECONDS = 0.02  # how old the view may be on which a scheduler chooses among the hosts that others prefer

_DESTINATION = Filter("destination", destination.check)
# First, whatever is configured. In Nova most of these are no filters (placement and alternates see to it), so its lists lack them.
_ALWAYS = filters.load(["retry", "compute_up", "availability_zone", "capacity", "traits"])
_ALWAYS_WEIGHED = ["probes"]  # quarantine is ours: no list written for Nova names what ends it
# The claim insists on these whatever is configured.
_GROUPS = filters.load(["server_group_anti_affinity", "server_group_affinity"])
# What these say does not change with load and time, only when an operator changes what hosts are.
_LASTING = {
    "destination",
    "availability_zone",
    "traits",
    "compute_capabilities",
    "image_properties",
    "isolated_hosts",
    "simple_cidr_affinity",
    "aggregate_image_properties_isolation",
    "aggregate_instance_extra_specs",
    "aggregate_multi_tenancy_isolation",
    "aggregate_type_affinity",
}
# A forced host skips all else, but is not tried twice; and room it must have, as every claim insists on that too.
_FORCED = [_DESTINATION, Filter("retry", retry.check), Filter("capacity", capacity.check), *_GROUPS]


@dataclass(frozen=True, slots=True)
class Fall:
    """The hosts that fell for one verdict of one filter."""

    check: str
    reason: str
    hosts: Mask
    details: Mapping[int, str]  # by host id


@dataclass(frozen=True, slots=True)
class Outcome:
    """What filters left: where they are, and why the others are not."""

    passing: Mask
    rejections: tuple[Rejection, ...]
    falls: tuple[Fall, ...] = ()  # all of them, in the order of the filters


class Scheduler:
    """Chooses hosts. One per process: what it chose counts at once for what it chooses next, from whatever thread."""

    def __init__(self, db: Database, conf: Any) -> None:
        """Load the filters and weighers that the configuration names.

        Raises: UnknownPlugin.
        """
        self._conf = conf
        enabled = {each.name: each for each in filters.load(conf.scheduler.enabled_filters, conf.scheduler.available_filters)}
        always = [enabled.pop(each.name, each) for each in _ALWAYS]
        # The claim looks again at what these say; where somebody has a filter of his own in such a place, that one's word is enough.
        ours = {each.name for each in always if each in _ALWAYS}
        self._asks_for_service, self._asks_for_zone = "compute_up" in ours, "availability_zone" in ours
        self._filters = [_DESTINATION, *always, *enabled.values(), *(each for each in _GROUPS if each.name not in enabled)]
        self._weighers = weighers.load([*conf.scheduler.weight_classes, *_ALWAYS_WEIGHED], conf)
        self._snapshot = Snapshot(db, conf.metrics.weight_setting)
        self._relations = RelationReader(db)
        # Counts cost their reading: a weigher that counts nowhere by configuration asks for none.
        needs = {need for each in self._filters for need in each.needs}
        needs |= {need for each in self._weighers if each.multiplier for need in each.needs}
        self._surroundings = Surroundings(db, needs, conf.scheduler.image_props_weight_setting)
        self._lock = threading.Lock()
        # Its number among the schedulers that run side by side, and how many they are. Each has hosts that it prefers among those that are
        # about as good: else all would choose the same ones until they see each other's claims.
        self.turn = (0, 1)

    def select(self, spec: RequestSpec, tried: Mapping[str, str], *, fresh: bool = False, patient: bool = False) -> Selection:
        """Choose a host for `spec`, none of `tried` (host -> why it failed there), and alternates for when it fills up meanwhile.

        `fresh`: read the hosts anew first, as after a claim that was lost. `patient`: for who can come again, the view may be old, and
        what is in flight counts as used even when nothing else is left.

        Raises: NoValidHost, with the reasons as its text and the whole `report`. To the impatient it is never said on an old view.
        """
        with self._lock:
            self._snapshot.forget_choice(spec.instance_uuid)  # an earlier attempt's
            self._relations.forget_choice(spec.instance_uuid)
            self._surroundings.forget_choice(spec.instance_uuid)
            request = Request(spec, spec.resources(), tried, now(), self._conf, self._relations.read(spec))
            was_read = self._refresh(0.0 if fresh else self._conf.scheduler.snapshot_max_age_seconds)
            hosts = self._snapshot.columns
            outcome = self._filter(hosts, request)
            weighed = weigh(hosts, request, outcome.passing, self._weighers)
            if not was_read and self._is_guest(hosts, outcome, weighed):
                # The others are at these hosts: what they have claimed by now tells which are left.
                was_read = self._refresh(_LOOK_SECONDS)
                if was_read:
                    request = replace(request, relations=self._relations.read(spec))
                    outcome = self._filter(hosts, request)
                    weighed = weigh(hosts, request, outcome.passing, self._weighers)
            is_certain = was_read and not self._snapshot.has_choices() and not self._relations.has_choices(spec)
            if not outcome.passing.any() and not is_certain and not patient:
                self._refresh(0.0, count_choices=False)
                request = replace(request, relations=self._relations.read(spec, count_choices=False))
                outcome = self._filter(hosts, request)
                weighed = weigh(hosts, request, outcome.passing, self._weighers)
            if not outcome.passing.any():
                raise _no_valid_host(PlacementReport(len(hosts), None, outcome.rejections))
            selection = self._choose(hosts, request, weighed, outcome, fresh=fresh)
            probe_at = None if selection.probe_before is None else request.at
            self._relations.note_choice(spec, selection.host_id)
            self._surroundings.note_choice(spec, selection.host)
            self._snapshot.note_choice(spec.instance_uuid, selection.host_id, request.resources, probe_at)
        return selection

    def explain(self, spec: RequestSpec, *, detail: bool = False, after: str = "", limit: int = 1000) -> Explanation:
        """What `select` would answer now, and why; nothing is kept of it, and no later request is the wiser.

        `detail`: with every host by name, at most `limit` of them behind the name `after`.
        """
        with self._lock:
            self._refresh(0.0)
            hosts = self._snapshot.columns
            request = Request(spec, spec.resources(), {}, now(), self._conf, self._relations.read(spec))
            outcome = self._filter(hosts, request)
            weighed = weigh(hosts, request, outcome.passing, self._weighers)
            if outcome.passing.any():
                report = self._choose(hosts, request, weighed, outcome).report
                assert report is not None
            else:
                report = PlacementReport(len(hosts), None, outcome.rejections)
            return _every_host(hosts, outcome, weighed, report, after, limit) if detail else Explanation(report)

    def demand(self, spec: RequestSpec, tried: Collection[str]) -> str:
        """Equal for requests that wait for the same room."""
        return demand(spec, tried, self._filters)

    def has_others(self, spec: RequestSpec, tried: Mapping[str, str]) -> bool:
        """Whether there are hosts besides those of `tried` that `spec` may go to, once they have room, answer and are not too busy."""
        with self._lock:
            hosts = self._snapshot.columns
            request = Request(spec, spec.resources(), tried, now(), self._conf)
            chain = [each for each in (_FORCED if spec.force_host else self._filters) if each.name in _LASTING]
            return bool((apply_filters(hosts, request, chain).passing & ~hosts.named(tried)).any())

    def refresh(self) -> None:
        """Read the hosts now, as before the first request."""
        with self._lock:
            self._refresh(0.0)

    def _refresh(self, max_age_seconds: float, *, count_choices: bool = True) -> bool:
        """Read what changed unless the last reading is young enough; answer whether hosts were read."""
        was_read = self._snapshot.refresh(max_age_seconds, count_choices=count_choices)
        if was_read or self._surroundings.is_behind:
            self._surroundings.refresh(self._snapshot.columns)
        return was_read

    def _filter(self, hosts: Columns, request: Request) -> Outcome:
        return apply_filters(hosts, request, _FORCED if request.spec.force_host else self._filters)

    def _is_guest(self, hosts: Columns, outcome: Outcome, weighed: Weighed) -> bool:
        """Whether only other schedulers prefer the hosts that are best."""
        return self.turn[1] > 1 and len(weighed.total) > 0 and of_turn(weighed, hosts.ids[outcome.passing], self.turn) is None

    def _choose(self, hosts: Columns, request: Request, weighed: Weighed, outcome: Outcome, *, fresh: bool = False) -> Selection:
        spec, options, weights = request.spec, self._conf.scheduler, weighed.total
        wanted = max(spec.max_attempts, options.host_subset_size, CANDIDATES_MAX)
        positions = np.flatnonzero(outcome.passing)
        number, count = self.turn
        order = best(weights, wanted, number / count)
        if options.shuffle_best_same_weighed_hosts:
            order = _put_first(order, int(random.choice(np.flatnonzero(weights == weights[order[0]]))))
        elif count > 1 and options.host_subset_size == 1:
            own = of_turn(weighed, hosts.ids[positions], self.turn)
            order = _put_first(order, among_others(weighed, hosts.ids[positions], self.turn) if own is None else own)
        chosen = int(order[random.randrange(min(options.host_subset_size, len(order)))]) if options.host_subset_size > 1 else int(order[0])
        ordered = [int(positions[i]) for i in order]
        at = int(positions[chosen])
        others = [position for position in ordered if position != at and not hosts.probed_at[position]]  # a probe is no alternate
        alternates = others[: spec.max_attempts - 1]
        used_at_most = None
        if count > 1 and not fresh and len(about_as_good(weighed)) > 1:
            # Others are as good: when this one became fuller meanwhile, by more than this request and by more than a tenth, look again.
            used = {name: int(hosts.resource(name).used[at]) for name in request.resources}
            used_at_most = {name: used[name] + max(amount, used[name] // 10) for name, amount in request.resources.items()}
        is_probe = bool(hosts.probed_at[at]) and not spec.force_host
        candidates = tuple(weighed.host(hosts.names[int(positions[i])], int(i)) for i in order[:CANDIDATES_MAX])
        report = PlacementReport(len(hosts), hosts.names[at], outcome.rejections, candidates)
        return Selection(
            host=hosts.names[at],
            host_id=int(hosts.ids[at]),
            alternates=tuple(hosts.names[position] for position in alternates),
            alternate_ids=tuple(int(hosts.ids[position]) for position in alternates),
            probe_before=request.at - self._conf.compute.quarantine_probe_interval if is_probe else None,
            used_at_most=used_at_most,
            only_in_service=self._asks_for_service and not spec.force_host,
            only_in_zone=spec.availability_zone if self._asks_for_zone and not spec.force_host else None,
            report=report,
        )


def apply_filters(hosts: Columns, request: Request, chain: list[Filter]) -> Outcome:
    """Which hosts pass all filters of the chain; every other host is counted under the first verdict that it fails."""
    passing = hosts.all()
    fallen: list[Rejection] = []
    falls_by_verdict: list[Fall] = []
    for each in chain:
        for verdict in each.verdicts(hosts, request, passing):
            mask, reason = verdict[0], verdict[1]
            falls = passing & ~mask
            count = int(np.count_nonzero(falls))
            if count:
                first = {int(hosts.ids[position]): hosts.names[position] for position in np.flatnonzero(falls)[:SAMPLE_MAX]}
                more: Mapping[int, str] = verdict[2] if len(verdict) == 3 else {}
                details = tuple(f"{name}: {more[host_id]}" for host_id, name in first.items() if host_id in more)
                advice = more.advice(falls) if isinstance(more, Shortage) else ""
                fallen.append(Rejection(each.name, reason, count, tuple(first.values()), details, advice))
                falls_by_verdict.append(Fall(each.name, reason, falls, more))
                passing &= mask
    fallen.sort(key=lambda rejection: -rejection.count)
    if len(fallen) > REASONS_MAX:
        rest = fallen[REASONS_MAX - 1 :]
        sample = tuple(name for rejection in rest for name in rejection.hosts)[:SAMPLE_MAX]
        fallen[REASONS_MAX - 1 :] = [Rejection("various", "for other reasons", sum(r.count for r in rest), sample)]
    return Outcome(passing, tuple(fallen), tuple(falls_by_verdict))


def _put_first(order: Integers, first: int) -> Integers:
    return np.concatenate(([first], order[order != first]))


def _every_host(hosts: Columns, outcome: Outcome, weighed: Weighed, report: PlacementReport, after: str, limit: int) -> Explanation:
    """One page of all hosts, by name."""
    fell_for = np.full(len(hosts), -1)
    for number, fall in enumerate(outcome.falls):
        fell_for[fall.hosts] = number
    place = np.cumsum(outcome.passing) - 1  # of a passing host among those that passed
    names = hosts.names_after(after, limit + 1)
    page = []
    for name in names[:limit]:
        at = hosts.position(name)
        assert at is not None
        if fell_for[at] < 0:
            page.append(HostVerdict(name, True, weighed.host(name, int(place[at])).weight))
            continue
        fall, host_id = outcome.falls[int(fell_for[at])], int(hosts.ids[at])
        page.append(HostVerdict(name, False, None, fall.check, fall.reason, fall.details.get(host_id, "")))
    return Explanation(report, tuple(page), len(names) > limit)


def _no_valid_host(report: PlacementReport) -> NoValidHost:
    error = NoValidHost(reason=" ".join([report.summary(), *report.advice()]))
    error.report = report
    return error
