"""Limits, zones and extensions of the Block Storage API."""

from __future__ import annotations

import falcon

from hullwright.api.context import caller
from hullwright.api.resource import Resource, send
from hullwright.api.volume.versions import before
from hullwright.persistence import volumes

_UNLIMITED = -1


@falcon.before(before)
class Limits(Resource):
    """GET /v3/limits."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """What the caller's project uses; nothing is limited."""
        with self.context.db.read() as conn:
            count, size_gb = volumes.usage(conn, caller(req).project_id)
        send(
            resp,
            {
                "limits": {
                    "rate": [],
                    "absolute": {
                        "maxTotalVolumes": _UNLIMITED,
                        "maxTotalVolumeGigabytes": _UNLIMITED,
                        "maxTotalSnapshots": 0,
                        "maxTotalBackups": 0,
                        "maxTotalBackupGigabytes": 0,
                        "totalVolumesUsed": count,
                        "totalGigabytesUsed": size_gb,
                        "totalSnapshotsUsed": 0,
                        "totalBackupsUsed": 0,
                        "totalBackupGigabytesUsed": 0,
                    },
                }
            },
        )


@falcon.before(before)
class Zones(Resource):
    """GET /v3/os-availability-zone."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Volumes of the embedded service are in one zone."""
        name = self.context.conf.default_availability_zone
        send(resp, {"availabilityZoneInfo": [{"zoneName": name, "zoneState": {"available": True}}]})


@falcon.before(before)
class Extensions:
    """GET /v3/extensions."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """None."""
        send(resp, {"extensions": []})
