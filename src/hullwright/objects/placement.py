"""Placement: where a build goes and why. The scheduler's answer and the reasons of the hosts it rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hullwright.objects.records import Record

# What a user can do about the hosts that fell for a check, where the check itself has nothing better to say.
_ADVICE = {
    "destination": "Name another host, or none.",
    "retry": "Each of these hosts was tried: the attempts tell what failed there.",
    "compute_up": "An operator sees with `hullwright host list` which hosts are disabled, down or in quarantine, and brings them back.",
    "availability_zone": "Name another availability zone, or none.",
    "compute_capabilities": "Take a flavor that asks for other capabilities (its extra specs say which).",
    "traits": "Take a flavor or an image that requires, or forbids, other traits.",
    "different_host": "Name other servers in the hint different_host, or none.",
    "same_host": "Name other servers in the hint same_host, or none.",
    "json_query": "Change the hint query, or leave it out.",
    "simple_cidr_affinity": "Change the hints build_near_host_ip and cidr, or leave them out.",
    "io_ops": "Try again when builds on these hosts are done.",
    "aggregate_io_ops": "Try again when builds on these hosts are done.",
    "num_instances": "These hosts take no more servers, whatever their size: delete some, or have a host added.",
    "aggregate_num_instances": "These hosts take no more servers, whatever their size: delete some, or have a host added.",
    "metrics": "An operator sees to it that all hosts tell the metrics that builds are weighed by.",
    "isolated_hosts": "Hosts are kept for certain images, and these for them: use another image, or have a host added for this one.",
    "aggregate_instance_extra_specs": "Take a flavor whose extra specs ask for what the hosts' aggregates have.",
    "aggregate_multi_tenancy_isolation": "An operator keeps these hosts for other projects, and can give this one some.",
    "aggregate_image_properties_isolation": "Use an image with the properties that the hosts' aggregates want.",
    "aggregate_type_affinity": "Take a flavor that the hosts' aggregates are for.",
    "image_properties": "Use an image whose properties and disk format these hosts can run.",
    "server_group_affinity": "The group keeps its servers together where there is no room left: leave the group out, or make another.",
    "server_group_anti_affinity": "The group keeps its servers apart and has one on each host: leave the group out, or make another.",
}


@dataclass(frozen=True, slots=True)
class Rejection(Record):
    """One reason and the hosts that fell for it."""

    check: str  # filter's name: capacity, compute_up, retry, ...
    reason: str  # for users: it names no host, such as "lack 4096 MB memory"
    count: int
    hosts: tuple[str, ...] = ()  # a sample, for admins
    details: tuple[str, ...] = ()  # what more is known of those hosts, for admins
    advice: str = ""  # for users: what they can do about it


@dataclass(frozen=True, slots=True)
class WeighedHost(Record):
    """A host that passed every filter."""

    host: str
    weight: float
    parts: Mapping[str, float] = field(default_factory=dict)  # weigher -> its share of the weight


@dataclass(frozen=True, slots=True)
class PlacementReport(Record):
    """Why a build went where it went, or nowhere."""

    considered: int
    chosen: str | None = None
    rejections: tuple[Rejection, ...] = ()
    candidates: tuple[WeighedHost, ...] = ()  # the best, in order

    def claimed(self, host: str, lost: Mapping[str, str]) -> PlacementReport:
        """The same, once the claim has `host`; `lost`: host -> why it was not to be had, of those that the claim tried before."""
        details = tuple(f"{name}: {why}" for name, why in lost.items())
        rejection = Rejection("claim", "not to be had any more when they were claimed", len(lost), tuple(lost), details)
        left = tuple(each for each in self.candidates if each.host not in lost)
        return replace(self, chosen=host, rejections=(*self.rejections, rejection), candidates=left)

    def summary(self) -> str:
        """One sentence for a person: "0 of 3 hosts fit: 2 lack 4096 MB memory, 1 already tried."."""
        if not self.considered:
            return "No host is registered: an operator has to add one."
        fit = self.considered - sum(r.count for r in self.rejections)
        text = f"{fit} of {self.considered} host{'s' if self.considered != 1 else ''} fit"
        if self.rejections:
            text += ": " + ", ".join(f"{r.count} {r.reason}" for r in self.rejections)
        return text + "."

    def by_name(self) -> str:
        """For admins: for each reason some of the hosts that fell for it, with what more is known of them; nothing, when none fell."""
        told = []
        for each in self.rejections:
            hosts = [next((text for text in each.details if text.startswith(f"{name}: ")), name) for name in each.hosts]
            more = each.count - len(hosts)
            told.append(f"{each.reason} - {'; '.join(hosts)}{f'; and {more} more' if more > 0 and hosts else ''}")
        return ". ".join(told) + "." if told else ""

    def advice(self) -> tuple[str, ...]:
        """What a user can do so that the request finds a host, the most frequent reason first. Nothing, when it found one."""
        if self.chosen is not None:
            return ()
        told = (rejection.advice or _ADVICE.get(rejection.check, "") for rejection in self.rejections)
        return tuple(dict.fromkeys(text for text in told if text))


@dataclass(frozen=True, slots=True)
class HostVerdict(Record):
    """One host and a request: it fits, with a weight, or falls for a reason."""

    host: str
    fits: bool
    weight: float | None = None
    check: str = ""
    reason: str = ""
    detail: str = ""  # what more is known of it, for admins


@dataclass(frozen=True, slots=True)
class Explanation(Record):
    """What would become of a request now. Nothing is written or claimed for it."""

    report: PlacementReport
    hosts: tuple[HostVerdict, ...] = ()  # by name; only when asked for
    more: bool = False  # hosts follow behind the last one


@dataclass(frozen=True, slots=True)
class Selection(Record):
    """The host to try first and those to walk down when a claim is lost to somebody else."""

    host: str
    host_id: int
    alternates: tuple[str, ...] = ()
    alternate_ids: tuple[int, ...] = ()
    # The host is in quarantine, and this would be its probe: unless another one began after this time (seconds since the epoch).
    probe_before: float | None = None
    # Other hosts were about as good: this one is to be had only while no more than this of each resource class is used there.
    used_at_most: Mapping[str, int] | None = None
    # What the claim insists on besides room, since the hosts were looked at: that one is enabled and not forced down, and in this zone.
    only_in_service: bool = False
    only_in_zone: str | None = None
    report: PlacementReport | None = None


@dataclass(frozen=True, slots=True)
class Claim(Record):
    """What an instance holds of a host."""

    instance_uuid: str
    host_id: int
    resources: Mapping[str, int]  # resource class -> amount
    job_uuid: str | None = None  # the build that claimed it
