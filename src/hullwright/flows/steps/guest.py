"""The guest itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hullwright.flows.config_drive import config_drive_files
from hullwright.flows.context import RunContext
from hullwright.flows.leftovers import clean_now_or_later
from hullwright.flows.step import Step
from hullwright.objects.disks import PREFIXES, bus_of, first_free, given_name
from hullwright.objects.errors import VolumeError
from hullwright.objects.guests import GuestSpec, GuestVolume
from hullwright.objects.images import CachedImage
from hullwright.objects.instances import RequestSpec
from hullwright.objects.networks import Vif
from hullwright.objects.states import TaskState
from hullwright.objects.volumes import Attachment, Connection
from hullwright.persistence import instances, volumes


class Spawn(Step):
    """Has the guest running on the host.

    Reverts: leaves nothing of it there: domain, disks, config drive, console log.
    """

    step_name = "spawn"

    def execute(
        self,
        run: RunContext,
        host: str,
        vifs: Sequence[Mapping[str, Any]],
        connections: Sequence[Mapping[str, Any]],
        images: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Spawn; a guest that is there already, in whatever shape, is brought to run."""
        disks = guest_volumes(run.spec, connections)
        zone = None
        with run.transaction() as connection:
            instances.transition(
                connection,
                run.instance_uuid,
                expected_task_state=(TaskState.NETWORKING, TaskState.SPAWNING),
                task_state=TaskState.SPAWNING,
            )
            named = {pair["attachment"]["id"]: f"/dev/{disk.device}" for pair, disk in zip(connections, disks, strict=True)}
            volumes.set_devices(connection, named)
            if run.instance.config_drive:
                zone = instances.get_zone(connection, run.instance_uuid)  # the claim gave it after the instance was read
        guest = guest_spec(run, vifs, disks, images, zone)
        run.virt(host).spawn(guest, lambda done, total: run.progress(self.name, done, total))

    def revert(self, run: RunContext, host: str, **kwargs: Any) -> None:
        """Destroy."""
        clean_now_or_later(run, host, lambda: run.virt(host).destroy(run.instance_uuid))


def guest_spec(
    run: RunContext,
    vifs: Sequence[Mapping[str, Any]],
    disks: tuple[GuestVolume, ...],
    images: Mapping[str, Mapping[str, Any]],
    zone: str | None,
) -> GuestSpec:
    """All that the hypervisor needs, put together from the instance and from what the steps before provided."""
    instance, flavor = run.instance, run.spec.flavor
    cached = {role: CachedImage.from_dict(image) for role, image in images.items()}
    cards = tuple(Vif.from_dict(vif) for vif in vifs)
    return GuestSpec(
        uuid=instance.uuid,
        name=run.guest_name,
        display_name=instance.name,
        hostname=instance.hostname,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        root_gb=flavor.root_gb,
        project_id=instance.project_id,
        user_id=instance.user_id,
        flavor_name=flavor.name,
        image=cached.get("root"),
        kernel=cached.get("kernel"),
        ramdisk=cached.get("ramdisk"),
        swap_mb=flavor.swap_mb,
        ephemeral_gb=flavor.ephemeral_gb,
        vifs=cards,
        volumes=disks,
        config_drive_files=config_drive_files(instance, cards, disks, zone) if instance.config_drive else None,
        image_properties=run.spec.image_properties,
        extra_specs=flavor.extra_specs,
        created_at=instance.created_at,
    )


def guest_volumes(spec: RequestSpec, connections: Sequence[Mapping[str, Any]]) -> tuple[GuestVolume, ...]:
    """The volumes of a guest, each with its bus and a name there. `connections`: pairs of `Attachment` and `Connection` records.

    The boot volume is the first disk. Another one is named as its user said, if that is a name of its bus and not the root disk's; the
    others come after the disks that the flavor and the image bring. Those are named by the virt driver, around these.

    Raises: VolumeError for a bus that is not known, or has no name left.
    """
    asked = {device.attachment_id: device for device in spec.block_devices}
    pairs = [(Attachment.from_dict(pair["attachment"]), Connection.from_dict(pair["connection"])) for pair in connections]
    buses, named = {}, {}
    for attachment, _ in pairs:
        device = asked.get(attachment.id)
        bus = buses[attachment.id] = bus_of(device.disk_bus if device else None, spec.image_properties)
        if bus not in PREFIXES:
            raise VolumeError(volume=attachment.volume_id, reason=f"disk bus {bus} is not known")
        if attachment.boot_index == 0:
            named[attachment.id] = f"{PREFIXES[bus]}a"
    root = next(iter(named.values()), spec.root_device.removeprefix("/dev/"))
    taken = {root}
    for attachment, _ in pairs:
        wanted = given_name(attachment.device or "")
        if wanted and wanted not in taken and wanted.startswith(PREFIXES[buses[attachment.id]]) and attachment.id not in named:
            named[attachment.id] = wanted
            taken.add(wanted)
    for attachment, _ in pairs:
        if attachment.id not in named:
            name = first_free(buses[attachment.id], taken, skip=_local_disks(spec, buses[attachment.id]))
            if name is None:
                raise VolumeError(volume=attachment.volume_id, reason=f"there is no name left on disk bus {buses[attachment.id]}")
            named[attachment.id] = name
            taken.add(name)
    return tuple(
        GuestVolume(
            connection=connection,
            device=named[attachment.id],
            bus=buses[attachment.id],
            boot_index=attachment.boot_index,
            tag=asked[attachment.id].tag if attachment.id in asked else None,
        )
        for attachment, connection in pairs
    )


def _local_disks(spec: RequestSpec, bus: str) -> int:
    """How many names of a bus's series the root disk and the flavor's other disks take."""
    prefix = PREFIXES[bus]
    root = spec.root_device.removeprefix("/dev/").startswith(prefix)
    others = PREFIXES.get(bus_of(None, spec.image_properties)) == prefix
    return root + others * (bool(spec.flavor.ephemeral_gb) + bool(spec.flavor.swap_mb))
