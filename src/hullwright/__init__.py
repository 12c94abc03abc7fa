"""Hullwright builds virtual machines: each build a persisted graph of revertible steps."""
