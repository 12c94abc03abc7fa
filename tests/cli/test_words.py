"""Figures are told so that a person can read them."""

from __future__ import annotations

import pytest

from hullwright.cli import words


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (28_639_232, "27.3 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_have_a_unit(count: int, told: str) -> None:
    assert words.size(count) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "-"), (0.0042, "0.004 s"), (3.214, "3.21 s"), (125.2, "2 min 05 s"), (3_720, "1 h 02 min"), (-0.1, "0.000 s")],
)
def test_durations_have_a_fitting_unit(seconds: float | None, told: str) -> None:
    assert words.duration(seconds) == told
