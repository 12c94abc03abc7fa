"""The guest itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hullwright.flows.config_drive import config_drive_files
from hullwright.flows.context import RunContext
from hullwright.flows.leftovers import tolerating_silence
from hullwright.flows.step import Step
from hullwright.objects.guests import GuestSpec, GuestVolume
from hullwright.objects.images import CachedImage
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
        taken = _local_disks(run)
        disks = _guest_volumes(connections, root_is_volume=run.spec.boots_from_volume, taken=taken)
        zone = None
        with run.transaction() as connection:
            instances.transition(
                connection,
                run.instance_uuid,
                expected_task_state=(TaskState.NETWORKING, TaskState.BLOCK_DEVICE_MAPPING, TaskState.SPAWNING),
                task_state=TaskState.SPAWNING,
            )
            named = {pair["attachment"]["id"]: f"/dev/{disk.device}" for pair, disk in zip(connections, disks, strict=True)}
            volumes.set_devices(connection, named)
            if run.instance.config_drive:
                zone = instances.get_zone(connection, run.instance_uuid)  # the claim gave it after the instance was read
        run.virt(host).spawn(guest_spec(run, vifs, disks, images, zone))

    def revert(self, run: RunContext, host: str, **kwargs: Any) -> None:
        """Destroy."""
        with tolerating_silence(run, host):
            run.virt(host).destroy(run.instance_uuid)


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
        config_drive_files=config_drive_files(instance, cards, zone) if instance.config_drive else None,
        image_properties=run.spec.image_properties,
        extra_specs=flavor.extra_specs,
        created_at=instance.created_at,
    )


def _local_disks(run: RunContext) -> int:
    """How many vdX names the root, ephemeral and swap disks take."""
    flavor = run.spec.flavor
    return (not run.spec.boots_from_volume) + bool(flavor.ephemeral_gb) + bool(flavor.swap_mb)


def _guest_volumes(connections: Sequence[Mapping[str, Any]], *, root_is_volume: bool, taken: int) -> tuple[GuestVolume, ...]:
    """Give each volume a device name: the boot volume is the first disk, the others come after the local ones, or where the user said."""
    disks = []
    used = {Attachment.from_dict(pair["attachment"]).device for pair in connections}
    letters = (letter for letter in "abcdefghijklmnopqrstuvwxyz"[taken + root_is_volume :] if f"/dev/vd{letter}" not in used)
    for pair in connections:
        attachment = Attachment.from_dict(pair["attachment"])
        if attachment.boot_index == 0:
            device = "vda"
        elif attachment.device:
            device = attachment.device.rpartition("/")[2]
        else:
            device = f"vd{next(letters)}"
        disks.append(GuestVolume(connection=Connection.from_dict(pair["connection"]), device=device, boot_index=attachment.boot_index))
    return tuple(disks)
