"""The Build API: what became of a build, step by step, and a stream of it while it happens. Documented in docs/build-api.md.

Not for: changing anything; servers are made and deleted by the Compute API.
"""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.builds import builds, placement
from hullwright.api.builds.errors import error_body
from hullwright.api.builds.stream import Streams
from hullwright.api.context import ApiContext

PREFIX = "/v1/builds"


def add_routes(app: falcon.App[Any, Any], context: ApiContext) -> None:
    """Answer below /v1/builds, and /v1/placement:explain."""
    context.error_bodies[PREFIX] = error_body
    context.error_bodies[placement.PATH] = error_body
    streams = Streams(context.db, context.conf, context.stopping)
    app.add_route(PREFIX, builds.Builds(context))
    app.add_route(f"{PREFIX}/{{build_id}}", builds.BuildItem(context))
    app.add_route(f"{PREFIX}/{{build_id}}/events", builds.BuildEvents(context, streams))
    app.add_route(f"{PREFIX}/{{build_id}}/stream", builds.BuildStream(context, streams))
    app.add_route(placement.PATH, placement.Explain(context))
