"""Placement: where a build goes and why. The scheduler's answer and the reasons of the hosts it rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hullwright.objects.records import Record


@dataclass(frozen=True, slots=True)
class Rejection(Record):
    """One reason and the hosts that fell for it."""

    check: str  # filter's name: capacity, compute_up, retry, ...
    reason: str  # "lack 4096 MB memory", "already tried: libvirt: ..."
    count: int
    hosts: tuple[str, ...] = ()  # a sample, for admins
    details: tuple[str, ...] = ()  # what more is known of those hosts, for admins


@dataclass(frozen=True, slots=True)
class WeighedHost(Record):
    """A host that passed every filter."""

    host: str
    weight: float


@dataclass(frozen=True, slots=True)
class PlacementReport(Record):
    """Why a build went where it went, or nowhere."""

    considered: int
    chosen: str | None = None
    rejections: tuple[Rejection, ...] = ()
    candidates: tuple[WeighedHost, ...] = ()  # the best, in order

    def summary(self) -> str:
        """One sentence for a person: "0 of 3 hosts fit: 2 lack 4096 MB memory, 1 already tried: ..."."""
        if not self.considered:
            return "No host is registered: an operator has to add one."
        fit = self.considered - sum(r.count for r in self.rejections)
        text = f"{fit} of {self.considered} host{'s' if self.considered != 1 else ''} fit"
        if self.rejections:
            text += ": " + ", ".join(f"{r.count} {r.reason}" for r in self.rejections)
        return text + "."


@dataclass(frozen=True, slots=True)
class Selection(Record):
    """The host to try first and those to walk down when a claim is lost to somebody else."""

    host: str
    host_id: int
    alternates: tuple[str, ...] = ()
    alternate_ids: tuple[int, ...] = ()
    # The host is in quarantine, and this would be its probe: unless another one began after this time (seconds since the epoch).
    probe_before: float | None = None
    report: PlacementReport | None = None


@dataclass(frozen=True, slots=True)
class Claim(Record):
    """What an instance holds of a host."""

    instance_uuid: str
    host_id: int
    resources: Mapping[str, int]  # resource class -> amount
    job_uuid: str | None = None  # the build that claimed it
