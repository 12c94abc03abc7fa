"""Shortage: what hosts lack of one resource: asked, free, total and ratio of each, and what a user can do about it.

It is the third part of the capacity filter's verdict. A host's text is made when a report names the host, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from hullwright.objects.hosts import describe_amount
from hullwright.scheduler.columns import Columns, Mask


class Shortage(Mapping[int, str]):
    """Host id -> "4096 MB memory asked, 1024 free of 12288 (8192 x 1.5)"."""

    def __init__(self, hosts: Columns, resource_class: str, amount: int) -> None:
        """`amount`: what was asked for."""
        self._hosts = hosts
        self._resource = hosts.resource(resource_class)
        self._class = resource_class
        self._amount = amount

    def __getitem__(self, host_id: int) -> str:
        """Of one host."""
        at = self._hosts.position_of_id(host_id)
        if at is None:
            raise KeyError(host_id)
        found = self._resource
        usable, ratio, capacity, used = (column[at].item() for column in (found.usable, found.ratio, found.capacity, found.used))
        asked = f"{describe_amount(self._class, self._amount)} asked"
        if usable <= 0:
            return f"{asked}, the host has none"
        # A server overcommits against others, never against itself.
        limit = f", at most {usable} for one server" if usable < min(self._amount, capacity) else ""
        return f"{asked}, {max(0, int(capacity) - used)} free of {int(capacity)} ({usable} x {ratio:g}){limit}"

    def __iter__(self) -> Iterator[int]:
        """All hosts."""
        return iter(self._hosts.ids.tolist())

    def __len__(self) -> int:
        """How many hosts there are."""
        return len(self._hosts)

    def advice(self, fallen: Mask) -> str:
        """For users, about the hosts that fell for it: how large they are, how much they have left. It names none."""
        usable = self._resource.usable[fallen]
        largest = int(usable.max())
        if largest < self._amount:
            there_is = describe_amount(self._class, max(0, largest))
            return f"The largest of these hosts has {there_is}: ask for less, or have a larger one added."
        free = max(0, int(np.minimum(self._resource.free[fallen], usable).max()))
        return f"The most that one of these hosts has free is {describe_amount(self._class, free)}: ask for less, or wait for room."
