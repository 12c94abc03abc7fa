"""[builds]: the Build API's streams of events."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "builds"
OPTS = [
    cfg.IntOpt(
        "max_streams",
        default=4,
        min=0,
        help="Streams of events that one API process serves at a time; each holds a thread. Two of [api] threads always stay free for "
        "other requests, so fewer may be served. Beyond it: 503, and clients ask for the events in intervals.",
    ),
    cfg.FloatOpt("poll_seconds", default=0.2, min=0.01, help="How often a stream looks for news; one small statement each time."),
    cfg.FloatOpt(
        "keepalive_seconds",
        default=5.0,
        min=0.1,
        help="How long a stream may be silent before it sends a comment. It is also how a stream notices that its client has gone, "
        "and gives its place to another.",
    ),
    cfg.FloatOpt(
        "max_stream_seconds",
        default=3600.0,
        min=0.1,
        help="How long a stream lives. Clients come back by themselves and go on behind the last event that they saw.",
    ),
]
