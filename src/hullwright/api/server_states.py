"""A server's status, the one word that users see, from vm_state and task_state; and the way back, for filters."""

from __future__ import annotations

from hullwright.objects.states import TaskState, VmState

_BY_VM_STATE = {
    VmState.BUILDING: "BUILD",
    VmState.ACTIVE: "ACTIVE",
    VmState.PAUSED: "PAUSED",
    VmState.SUSPENDED: "SUSPENDED",
    VmState.STOPPED: "SHUTOFF",
    VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}
_WHILE: dict[tuple[str, str | None], str] = {
    (VmState.ACTIVE, TaskState.REBOOTING): "REBOOT",
    (VmState.ACTIVE, TaskState.REBOOTING_HARD): "HARD_REBOOT",
    (VmState.STOPPED, TaskState.REBOOTING_HARD): "HARD_REBOOT",
    (VmState.PAUSED, TaskState.REBOOTING_HARD): "HARD_REBOOT",
    (VmState.SUSPENDED, TaskState.REBOOTING_HARD): "HARD_REBOOT",
    (VmState.ERROR, TaskState.REBOOTING_HARD): "HARD_REBOOT",
}
_STATUS: dict[tuple[str, str | None], str] = {
    **{(vm, task): status for vm, status in _BY_VM_STATE.items() for task in (None, *TaskState)},
    **_WHILE,
}

WITH_PROGRESS = frozenset({"ACTIVE", "BUILD"})
WITH_FAULT = frozenset({"ERROR", "DELETED"})


def status(vm_state: str, task_state: str | None) -> str:
    """The status of a server in these states."""
    return _STATUS.get((vm_state, task_state), "UNKNOWN")


def states_of(wanted: str) -> list[tuple[str, list[str | None]]]:
    """The (vm_state, task states) that show as status `wanted`, in whatever case; none for a status that we never show."""
    found: dict[str, list[str | None]] = {}
    for (vm_state, task_state), shown in _STATUS.items():
        if shown == wanted.upper():
            found.setdefault(vm_state, []).append(task_state)
    return list(found.items())
