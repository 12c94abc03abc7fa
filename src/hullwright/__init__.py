"""Hullwright builds virtual machines: each build a persisted graph of revertible steps."""

__version__ = "0.1.0"
