"""[api]: where the HTTP API listens, who may use it, and its limits."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "api"
OPTS = [
    cfg.StrOpt("host", default="127.0.0.1", help="Address to listen on."),
    cfg.PortOpt("port", default=8774, help="Port to listen on."),
    cfg.IntOpt("workers", default=1, min=1, help="Processes that answer requests."),
    cfg.IntOpt("threads", default=8, min=1, help="Threads per process. Each may hold one database connection."),
    cfg.IntOpt(
        "graceful_timeout_seconds",
        default=30,
        min=1,
        help="How long requests under way may take to end when the API is stopped.",
    ),
    cfg.StrOpt(
        "auth_strategy",
        default="noauth",
        choices=[
            ("noauth", "everybody who can connect is an administrator of one project; good for one machine"),
            ("keystone", "tokens are checked by keystonemiddleware, see [keystone_authtoken]"),
        ],
        help="Who is asked whether a request may be made.",
    ),
    cfg.BoolOpt(
        "allow_noauth_remote",
        default=False,
        help="Serve without authentication on an address that is not loopback. Whoever reaches the port then owns "
        "all servers: only behind a proxy that does the authentication.",
    ),
    cfg.StrOpt("project_id", default="hullwright", help="Project of every request under auth_strategy noauth."),
    cfg.StrOpt("user_id", default="hullwright", help="User of every request under auth_strategy noauth."),
    cfg.StrOpt(
        "public_url",
        help="What links in answers begin with, for an API behind a proxy, e.g. https://cloud.example.org/compute. "
        "Unset: the scheme and host of the request.",
    ),
    cfg.IntOpt("max_limit", default=1000, min=1, help="Most items in one page of a list."),
    cfg.IntOpt(
        "max_body_bytes",
        default=256 * 1024,
        min=1024,
        help="Longest request body, image uploads aside. User data alone may be 65535 bytes.",
    ),
    cfg.IntOpt("max_servers_per_request", default=1000, min=1, help="Most servers that one request may create."),
    cfg.IntOpt(
        "idempotency_key_hours",
        default=48,
        min=24,
        help="How long the Idempotency-Key of a create request is remembered: so long the same request is answered with the same servers.",
    ),
    cfg.IntOpt("metadata_items", default=128, min=-1, help="Most metadata items of a server; -1: no limit."),
    cfg.BoolOpt(
        "enable_instance_password",
        default=False,
        help="Answer a create request with adminPass, the given or a generated one. Nothing sets it in the guest, so "
        "this is only for clients that insist on the field.",
    ),
    cfg.FloatOpt(
        "query_timeout_seconds",
        default=20.0,
        min=0.1,
        help="How long a request that must ask a hypervisor, such as for a console log, waits for the answer.",
    ),
]
