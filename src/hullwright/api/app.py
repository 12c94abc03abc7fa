"""The WSGI application: compute at /v2.1, and beside it the services that are mounted from other packages of this room."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import falcon
import falcon.media
import orjson

from hullwright.api import identity, routes
from hullwright.api.context import ApiContext
from hullwright.api.errors import ErrorHandlers
from hullwright.api.middleware import Authentication, Microversion, RequestId
from hullwright.api.policies import Policy
from hullwright.conductor.client import ConductorClient
from hullwright.persistence.database import Database

# Packages with `add_routes(app, context)`.
SERVICES = ("image", "network", "volume", "builds")

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Any]


def create_app(
    db: Database,
    conf: Any,
    client: ConductorClient,
    services: Sequence[str] = SERVICES,
    stopping: threading.Event | None = None,
) -> falcon.App[falcon.Request, falcon.Response]:
    """The application without authentication in front; see `with_authentication`.

    `stopping`: set by the server when it is asked to stop, so that streams end.
    """
    context = ApiContext(db=db, conf=conf, client=client, policy=Policy(conf), stopping=stopping or threading.Event())
    middleware: list[Any] = [RequestId(), Authentication(context), Microversion(routes.RESOURCES)]
    app = falcon.App(
        middleware=middleware,
        media_type=falcon.MEDIA_JSON,
    )
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = falcon.media.JSONHandler(dumps=orjson.dumps)
    app.req_options.strip_url_path_trailing_slash = True
    app.req_options.keep_blank_qs_values = True
    app.req_options.auto_parse_qs_csv = False
    ErrorHandlers(context).install(app)
    routes.add_routes(app, context)
    if conf.api.auth_strategy == "noauth":
        identity.add_routes(app, context)
    for name in services:
        importlib.import_module(f"hullwright.api.{name}").add_routes(app, context)
    return app


def with_authentication(app: WsgiApp, conf: Any) -> WsgiApp:
    """`app` behind keystonemiddleware when [api] auth_strategy says so.

    A missing or bad token is let through and refused by the application itself, which leaves the version documents open.
    """
    if conf.api.auth_strategy != "keystone":
        return app
    from keystonemiddleware import auth_token

    wrapped: WsgiApp = auth_token.AuthProtocol(app, {"oslo_config_config": conf, "delay_auth_decision": True})
    return wrapped
