"""The part of the Block Storage API (v3) that clients need, answered from the embedded volume service.

Not for: volumes that live in Cinder; no driver asks it yet.
Errors have the form of compute's, which is Cinder's too, so none is registered. A project id may follow /v3 in every path.
"""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.context import ApiContext
from hullwright.api.volume import attachments, limits, types, versions, volumes

PREFIX = "/volume"


def add_routes(app: falcon.App[Any, Any], context: ApiContext) -> None:
    """Answer below /volume."""
    resources = {
        "/volumes": volumes.Volumes(context),
        "/volumes/detail": volumes.VolumesDetail(context),
        "/volumes/{volume_id}": volumes.VolumeItem(context),
        "/volumes/{volume_id}/metadata": volumes.VolumeMetadata(context),
        "/volumes/{volume_id}/metadata/{name}": volumes.VolumeMetadataItem(context),
        "/volumes/{volume_id}/action": volumes.VolumeAction(context),
        "/types": types.Types(context),
        "/types/{type_id}": types.TypeItem(context),
        "/attachments": attachments.Attachments(context),
        "/attachments/detail": attachments.Attachments(context),
        "/attachments/{attachment_id}": attachments.AttachmentItem(context),
        "/limits": limits.Limits(context),
        "/os-availability-zone": limits.Zones(context),
        "/extensions": limits.Extensions(),
    }
    app.add_route(PREFIX, versions.Versions(context))
    app.add_route(f"{PREFIX}/v3", versions.Versions(context))
    for path, resource in resources.items():
        app.add_route(f"{PREFIX}/v3{path}", resource)
        app.add_route(f"{PREFIX}/v3/{{project_id}}{path}", resource)
