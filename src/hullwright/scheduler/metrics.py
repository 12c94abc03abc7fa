"""Metrics as columns: numbers that hosts tell of themselves, such as cpu.percent, of all hosts at once.

Only those that `[metrics] weight_setting` names are kept. Not for: where they come from; drivers tell them with a host's facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray


class MetricColumns:
    """One array per metric; NaN where a host does not tell it."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Start without hosts; `names`: the metrics to keep."""
        self.size = 0  # hosts
        self.by_name: dict[str, NDArray[np.float64]] = {name: np.zeros(0) for name in names}

    def of(self, name: str) -> NDArray[np.float64]:
        """A metric of all hosts; one that is not kept is told by nobody."""
        found = self.by_name.get(name)
        return np.full(self.size, np.nan) if found is None else found

    def put(self, position: int, told: Mapping[str, float]) -> None:
        """Give a host its metrics."""
        for name, column in self.by_name.items():
            column[position] = told.get(name, np.nan)

    def resize(self, size: int) -> None:
        """Make room for hosts at the end."""
        unknown = np.full(size - self.size, np.nan)
        self.size = size
        self.by_name = {name: np.concatenate((column, unknown)) for name, column in self.by_name.items()}

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop the other hosts."""
        self.size = int(mask.sum())
        self.by_name = {name: column[mask] for name, column in self.by_name.items()}
