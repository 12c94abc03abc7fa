"""The tables, one module per aggregate. Importing this package fills `metadata`; migrations are compared with it in a test."""

from hullwright.persistence.models import (  # noqa: F401
    groups,
    hosts,
    idempotency_keys,
    images,
    instances,
    jobs,
    networks,
    volumes,
)
from hullwright.persistence.models.base import metadata

__all__ = ["metadata"]
