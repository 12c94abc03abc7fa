"""The virt driver for hosts behind libvirt: the contract's calls, each in terms of this package's parts.

Not for: details. Images are in image_cache.py, disks in disks.py, the domain's XML in domain_xml.py, its power in domains.py.
No state is kept but connections and the last look at the CPUs: any process may make the next call.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.libvirt_binding import load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.virt.contract import ImageSource, ReportProgress, VirtDriver, WatchGuests, no_report
from hullwright.drivers.virt.libvirt import capabilities, config_drive, cpu_monitor, disks, domain_xml, domains
from hullwright.drivers.virt.libvirt.image_cache import cached_images
from hullwright.drivers.virt.libvirt.image_check import ImageCheck
from hullwright.drivers.virt.libvirt.image_transfer import ImageCache
from hullwright.objects import fence
from hullwright.objects.errors import GuestNameTaken, GuestRefused, HypervisorError, ImageUnacceptable, InstanceNotFound
from hullwright.objects.guests import GuestInfo, GuestSpec
from hullwright.objects.hosts import HostFacts, HostRef
from hullwright.objects.images import CachedImage, Image
from hullwright.objects.states import PowerState

GIB = 1024**3
CAPABILITIES_SECONDS = 60.0  # for how long what was read of them holds


class LibvirtDriver(VirtDriver):
    """One host behind libvirt."""

    def __init__(self, host: HostRef, conf: Any) -> None:
        """`conf`: the options object; [libvirt], [compute] compute_monitors and state_path are read."""
        self._host = host
        self._options = conf.libvirt
        self._connections = LibvirtPool.shared()
        path = storage.pool_path(host, self._options.pool_path, conf.state_path)
        self._pool = storage.HostPool(self._options.pool_name, path)
        self._told: WatchGuests | None = None
        self._known: tuple[float, capabilities.Capabilities] | None = None  # since when (monotonic)
        self._cpu = cpu_monitor.CpuMonitor() if cpu_monitor.NAME in conf.compute.compute_monitors else None
        self._images = ImageCache(host, self._pool, self._connections, self._options.image_stale_seconds)
        self._checks = ImageCheck(host, self._pool, self._connections, self._options.image_stale_seconds)

    # --- the host ---------------------------------------------------------------------------------------------------

    def facts(self) -> HostFacts:
        """See VirtDriver.facts."""
        with self._connection("read facts") as connection:
            libvirt = load_libvirt()
            can = capabilities.read(connection)
            virt_type, cpu_mode = self._kind(can)
            pool = self._pool.ensure(connection)
            storage.refresh(pool)  # the room that is left is only counted then
            _state, capacity_bytes, _allocated, free_bytes = pool.info()
            return HostFacts(
                hostname=connection.getHostname(),
                hypervisor_type=connection.getType(),  # QEMU, with KVM too: what flavors and queries written for Nova compare with
                hypervisor_version=connection.getVersion(),
                vcpus=connection.getInfo()[2],
                # Not getInfo's: that is a sum over NUMA nodes, which leaves out memory that was added later.
                memory_mb=connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"] // 1024,
                disk_gb=capacity_bytes // GIB,
                disk_free_gb=free_bytes // GIB,
                cpu_model=can.cpu_model,
                cpu_arch=can.arch,
                cpu_features=can.cpu_features,
                guest_cpu_features=self._guest_cpu_features(connection, can.arch, cpu_mode) if virt_type == "kvm" else None,
                virt_types=("kvm", "qemu") if virt_type == "kvm" else (virt_type,),  # QEMU runs them in either case
                machine_types=can.machine_types,
                disk_formats=("raw", "qcow2"),  # what this driver takes (image_format), of all that libvirt and QEMU may know
                host_ip=capabilities.host_ip(self._host, self._options.host_ip),
                cached_images=cached_images(pool),
                metrics=self._cpu.read(connection) if self._cpu is not None else {},
                extra={"libvirt_version": str(connection.getLibVersion()), "host_uuid": can.uuid, "pool": pool.name()},
            )

    def guests(self) -> list[GuestInfo]:
        """See VirtDriver.guests."""
        with self._connection("list guests") as connection:
            return domains.list_all(connection)

    def leftovers(self) -> list[str]:
        """See VirtDriver.leftovers."""
        with self._connection("list disks") as connection:
            pool = self._pool.find(connection)
            return disks.owners(pool) if pool is not None else []

    # --- making and unmaking ----------------------------------------------------------------------------------------

    def ensure_image(self, image: Image, source: ImageSource, progress: ReportProgress) -> CachedImage:
        """See VirtDriver.ensure_image."""
        return self._images.ensure(image, source, progress)

    def spawn(self, guest: GuestSpec, progress: ReportProgress = no_report) -> None:
        """See VirtDriver.spawn. A domain is defined when its disks are whole, so finding one means that only starting is left."""
        with self._connection(f"spawn {guest.name}") as connection:
            domain = domains.find(connection, guest.uuid)
            if domain is None:
                description = self._make_disks(connection, guest, progress)
                fence.check()
                domain = self._define(connection, guest, description)
            fence.check()
            try:
                domains.start(domain)
            except load_libvirt().libvirtError as error:
                self._blame_shape(error, guest)
                raise

    def _define(self, connection: Any, guest: GuestSpec, description: str) -> Any:
        try:
            return connection.defineXML(description)
        except load_libvirt().libvirtError as error:
            other = domains.find_named(connection, guest.name)
            if other is None or other.UUIDString() == guest.uuid:
                self._blame_shape(error, guest)
                raise
            raise GuestNameTaken(host=self._host.name, name=guest.name, other=other.UUIDString()) from None

    def _blame_shape(self, error: Any, guest: GuestSpec) -> None:
        """Raise GuestRefused when the host refuses what this guest asks for beyond others. A plain guest that is refused is the host's
        fault, or its configuration's: such a host must not go on swallowing builds.

        Raises: GuestRefused; ImageUnacceptable for a kernel or ramdisk that is none.
        """
        if guest.kernel is not None and domains.is_bad_kernel(error):
            reason = f"QEMU cannot load it, or its ramdisk: {error.get_error_message()}"
            raise ImageUnacceptable(image=guest.kernel.image_id, reason=reason) from None
        if domains.is_refusal(error) and domain_xml.asks_for_a_shape(guest):
            reason = error.get_error_message() or str(error)
            raise GuestRefused(operation=f"spawn {guest.name}", host=self._host.name, reason=reason) from None

    def _make_disks(self, connection: Any, guest: GuestSpec, progress: ReportProgress) -> str:
        """Have all files of the guest on the host; answers its domain XML."""
        drive = config_drive.build(guest.config_drive_files) if guest.config_drive_files is not None else None
        wanted = disks.plan(guest, self._options.images_type, len(drive) if drive is not None else None)
        settings = self._settings(connection)
        pool = self._pool.ensure(connection)
        made = []
        for disk in wanted:
            fence.check()
            content = drive if disk.suffix == disks.CONFIG_DRIVE else None
            lend = functools.partial(self._connection, f"copy a disk of {guest.name}")
            made.append((disk, disks.make(connection, pool, guest.uuid, disk, lend, progress, content)))
        return domain_xml.build(guest, settings, made, disks.make_console_log(pool, guest.uuid))

    def _settings(self, connection: Any) -> domain_xml.Settings:
        options = self._options
        can = self._capabilities(connection)
        virt_type, cpu_mode = self._kind(can)
        return domain_xml.Settings(
            virt_type=virt_type,
            arch=can.arch,
            cpu_mode=cpu_mode,
            cpu_model=options.cpu_model,
            machine_type=options.machine_type,
            tb_cache_mb=options.tb_cache_mb,
            disk_cache=options.disk_cache,
            vnc_listen=str(options.vnc_listen) if options.vnc_enabled else None,
            memory_stats_seconds=options.memory_stats_seconds,
            pcie_root_ports=options.pcie_root_ports,
        )

    def _kind(self, can: capabilities.Capabilities) -> tuple[str, str]:
        """What guests are: their type and CPU mode."""
        virt_type = can.virt_types[0] if self._options.virt_type == "auto" else self._options.virt_type
        if self._options.cpu_mode != "auto":
            return virt_type, self._options.cpu_mode
        # QEMU's own default is too old a CPU for distributions of today.
        emulated = "maximum" if can.maximum_cpu else "none"
        return virt_type, "host-model" if virt_type == "kvm" else emulated

    def _guest_cpu_features(self, connection: Any, arch: str, cpu_mode: str) -> tuple[str, ...] | None:
        """The features of the CPU that guests with KVM see; None: all of the host's."""
        if cpu_mode == "custom":
            return capabilities.model_features(connection, arch, self._options.cpu_model or domain_xml.CUSTOM_CPU)
        return () if cpu_mode == "none" else None  # the default CPU is QEMU's business, and has next to nothing

    def _capabilities(self, connection: Any) -> capabilities.Capabilities:
        """Those read lately: they change when libvirt or QEMU is upgraded, and with the host's kernel."""
        known = self._known
        if known is None or time.monotonic() - known[0] > CAPABILITIES_SECONDS:
            known = self._known = (time.monotonic(), capabilities.read(connection))
        return known[1]

    def destroy(self, uuid: str, *, lives_elsewhere: bool = False) -> None:
        """See VirtDriver.destroy. The domain goes first: while it is there, it may use its files."""
        with self._connection(f"destroy {uuid}") as connection:
            domain = domains.find(connection, uuid)
            if domain is not None:
                if not domains.is_ours(domain):
                    reason = f"{domain.name()} was not made by Hullwright"
                    raise HypervisorError(operation=f"destroy {uuid}", host=self._host.name, reason=reason)
                domains.remove(domain)
            if lives_elsewhere and self._options.pool_shared:
                return
            pool = self._pool.find(connection)
            if pool is not None:
                disks.delete_all(pool, uuid)

    # --- living with it ---------------------------------------------------------------------------------------------

    def power_state(self, uuid: str) -> PowerState | None:
        """See VirtDriver.power_state."""
        with self._connection("read power state") as connection:
            domain = domains.find(connection, uuid)
            return None if domain is None else domains.power_state(domain)

    def console_log(self, uuid: str, max_bytes: int = 102_400) -> bytes:
        """See VirtDriver.console_log."""
        with self._connection("read console log") as connection:
            pool = self._pool.find(connection)
            return b"" if pool is None else disks.read_console_log(connection, pool, uuid, max_bytes)

    def power_on(self, uuid: str) -> None:
        """See VirtDriver.power_on."""
        with self._connection(f"power on {uuid}") as connection:
            domains.start(self._existing(connection, uuid))

    def power_off(self, uuid: str, timeout_seconds: float = 60.0) -> None:
        """See VirtDriver.power_off."""
        with self._connection(f"power off {uuid}") as connection:
            domain = self._existing(connection, uuid)
            if not domains.shut_down(domain, timeout_seconds):
                domains.stop(domain)

    def reboot(self, uuid: str, hard: bool) -> None:
        """See VirtDriver.reboot. Off and on again, so that a call that was cut in between is mended by the next."""
        with self._connection(f"reboot {uuid}") as connection:
            domain = self._existing(connection, uuid)
            if hard or not domains.shut_down(domain, self._options.soft_reboot_seconds):
                domains.stop(domain)
            domains.start(domain)

    def half_images(self) -> dict[str, str]:
        """See VirtDriver.half_images."""
        return self._images.half()

    def discard_half_image(self, image_id: str) -> bool:
        """See VirtDriver.discard_half_image. Waits for a sign of life of whoever held the transfer."""
        return self._images.discard_half(image_id)

    def damaged_images(self, *, deep: bool = False, only: Collection[str] | None = None) -> dict[str, str]:
        """See VirtDriver.damaged_images."""
        return self._checks.damaged(deep=deep, only=only)

    def evict_image(self, image_id: str) -> list[str] | None:
        """See VirtDriver.evict_image."""
        return self._checks.evict(image_id)

    def watch(self, tell: WatchGuests) -> bool:
        """See VirtDriver.watch."""
        if self._told is None:
            self._connections.watch(self._host, tell)
            self._told = tell
        return True

    def close(self) -> None:
        """Connections belong to the process and stay."""
        if self._told is not None:
            self._connections.unwatch(self._host, self._told)
            self._told = None

    def _existing(self, connection: Any, uuid: str) -> Any:
        domain = domains.find(connection, uuid)
        if domain is None:
            raise InstanceNotFound(id=uuid)
        return domain

    def _connection(self, operation: str) -> AbstractContextManager[Any]:
        return self._connections.connection(self._host, operation)
