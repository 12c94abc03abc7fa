"""Hosts: where guests run, what they hold and what they can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hullwright.objects.records import Record

_IDLE_REASON_MAX = 255  # as Nova's
HOST_RATIOS = ("cpu_allocation_ratio", "ram_allocation_ratio", "disk_allocation_ratio")
HOST_RESERVES = ("reserved_host_cpus", "reserved_host_memory_mb", "reserved_host_disk_mb")
HOST_SETTINGS = HOST_RATIOS + HOST_RESERVES  # options of [compute] that a host may have for itself


@dataclass(frozen=True, slots=True)
class Host(Record):
    """A registered host: a hypervisor behind a URI."""

    id: int
    uuid: str
    name: str
    uri: str  # qemu:///system, qemu+tls://host/system, fake:///path, ...
    driver: str = "libvirt"  # entry point in hullwright.virt
    enabled: bool = True
    disabled_reason: str | None = None
    forced_down: bool = False
    availability_zone: str = "nova"
    last_seen_at: float = 0.0  # seconds since the epoch; when the hypervisor last answered
    silent_since: float | None = None  # the first question that it has left unanswered; None when it answers
    silent_seconds: float = 0.0  # from that question to the latest one without an answer
    facts: HostFacts | None = None
    failed_builds: int = 0  # since the last success
    failed_step: str | None = None  # of the latest failed build
    failed_in_step: int = 0  # builds in a row that failed at that step
    quarantined_at: float | None = None  # None: it is not in quarantine
    quarantine_reason: str | None = None  # for operators
    probed_at: float | None = None  # when its latest probe began; at first when the quarantine did
    error: str | None = None  # why it did not answer, when it did not
    created_at: float = 0.0
    settings: Mapping[str, float] = field(default_factory=dict)  # of HOST_SETTINGS, those that differ from [compute]

    @property
    def takes_builds(self) -> bool:
        """Whether neither an operator nor its failed builds keep builds from it. It may be down all the same."""
        return self.enabled and self.quarantined_at is None

    @property
    def idle_reason(self) -> str | None:
        """Why it takes no builds, in no more characters than an API's `disabled_reason` has: the operator's words, or the quarantine's."""
        if not self.enabled:
            return self.disabled_reason
        return None if self.quarantined_at is None else f"quarantined: {self.quarantine_reason}"[:_IDLE_REASON_MAX]


class Asked(Protocol):
    """What is known of how a host answers; `Host` has it, and what others read of a host's row."""

    @property
    def forced_down(self) -> bool: ...
    @property
    def last_seen_at(self) -> float: ...
    @property
    def silent_seconds(self) -> float: ...


def is_up(host: Asked, down_seconds: float) -> bool:
    """Whether a host counts as up: it answered once, was not silent for too long when asked, and nobody declared it down.

    No clock is read here: hosts do not beat by themselves, and one that nobody asks is not silent. So a host stays up (or down) while
    all conductors are away. The scheduler's `compute_up` says the same of whole columns.
    """
    return not host.forced_down and host.last_seen_at > 0 and host.silent_seconds <= down_seconds


@dataclass(frozen=True, slots=True)
class Inventory(Record):
    """How much of one resource a host has."""

    resource_class: str  # VCPU, MEMORY_MB, DISK_GB
    total: int
    reserved: int = 0
    allocation_ratio: float = 1.0
    used: int = 0

    @property
    def capacity(self) -> int:
        """What may be claimed in all."""
        return int((self.total - self.reserved) * self.allocation_ratio)


IMAGES_TOLD_MAX = 1000


@dataclass(frozen=True, slots=True)
class HostFacts(Record):
    """What a hypervisor tells of itself."""

    hostname: str
    hypervisor_type: str  # QEMU (also of guests with KVM, as in Nova), fake
    hypervisor_version: int  # 7002022 for 7.2.22
    vcpus: int
    memory_mb: int
    disk_gb: int  # of the file system or pool that holds instances
    disk_free_gb: int
    cpu_model: str = ""
    cpu_arch: str = "x86_64"
    cpu_features: tuple[str, ...] = ()
    virt_types: tuple[str, ...] = ("qemu",)  # what guests are, best first: kvm only where it really works and is not switched off
    machine_types: tuple[str, ...] = ()
    disk_formats: tuple[str, ...] = ("raw", "qcow2")
    host_ip: str = "127.0.0.1"
    cached_images: tuple[str, ...] = ()  # ids of images that lie there whole, at most IMAGES_TOLD_MAX of them
    metrics: Mapping[str, float] = field(default_factory=dict)  # such as cpu.percent; see [compute] compute_monitors
    extra: Mapping[str, str] = field(default_factory=dict)
    guest_cpu_features: tuple[str, ...] | None = None  # of the CPU that guests with KVM see; None: cpu_features

    @property
    def guest_cpu(self) -> tuple[str, ...]:
        """The features that guests find in their CPU; none of an emulated one, which is its emulator's business."""
        if "kvm" not in self.virt_types:
            return ()
        return self.cpu_features if self.guest_cpu_features is None else self.guest_cpu_features


@dataclass(frozen=True, slots=True)
class HostRef(Record):
    """What a driver needs to reach a host."""

    name: str
    uri: str
    driver: str = "libvirt"


_AMOUNTS = {"VCPU": "{} vCPUs", "MEMORY_MB": "{} MB memory", "DISK_GB": "{} GB disk"}


def describe_amount(resource_class: str, amount: int) -> str:
    """An amount as a person says it: "4096 MB memory"."""
    if resource_class == "VCPU" and amount == 1:
        return "1 vCPU"
    return _AMOUNTS.get(resource_class, "{} " + resource_class).format(amount)
