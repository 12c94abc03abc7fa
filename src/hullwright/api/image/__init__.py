"""The part of the Image API (v2) that clients need, answered from the embedded image service: records and their bytes.

Not for: images that live in Glance; no driver asks it yet.
"""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.context import ApiContext
from hullwright.api.image import actions, data, images, schemas, versions
from hullwright.api.image.errors import error_body
from hullwright.conf import image as image_conf
from hullwright.drivers.image.local.store import ImageDirectory

PREFIX = "/image"


def add_routes(app: falcon.App[Any, Any], context: ApiContext) -> None:
    """Answer below /image."""
    context.error_bodies[PREFIX] = error_body
    directory = ImageDirectory(image_conf.directory(context.conf))
    app.add_route(PREFIX, versions.Versions(context))
    app.add_route(f"{PREFIX}/versions", versions.Versions(context))
    v2 = f"{PREFIX}/v2"
    app.add_route(v2, versions.Versions(context))
    app.add_route(f"{v2}/images", images.Images(context))
    app.add_route(f"{v2}/images/{{image_id}}", images.ImageItem(context, directory))
    app.add_route(f"{v2}/images/{{image_id}}/file", data.ImageData(context, directory))
    app.add_route(f"{v2}/images/{{image_id}}/actions/{{action}}", actions.Actions(context))
    app.add_route(f"{v2}/images/{{image_id}}/tags/{{tag}}", actions.Tags(context))
    app.add_route(f"{v2}/images/{{image_id}}/members", actions.Members(context))
    app.add_route(f"{v2}/info/import", actions.ImportInfo())
    app.add_route(f"{v2}/schemas/{{name}}", schemas.Schemas())
