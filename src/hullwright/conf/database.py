"""[database]: which database, and how careful SQLite is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oslo_config import cfg

GROUP = "database"
OPTS = [
    cfg.StrOpt(
        "connection",
        secret=True,
        help="SQLAlchemy URL: sqlite:////path/file.db or postgresql+psycopg://user:password@host/name. "
        "Unset: SQLite in hullwright.db under state_path, good for one machine.",
    ),
    cfg.StrOpt(
        "sqlite_synchronous",
        default="NORMAL",
        choices=[
            ("NORMAL", "loses nothing when a process is killed; a power cut may lose the last commits"),
            ("FULL", "syncs at each commit, which costs about one millisecond each"),
        ],
        help="SQLite's synchronous pragma in WAL mode.",
    ),
    cfg.FloatOpt(
        "busy_timeout_seconds",
        default=30.0,
        min=0.1,
        help="How long to wait for a locked SQLite database, or for a free connection, before the request fails with 503.",
    ),
    cfg.IntOpt("pool_size", default=32, min=2, help="Connections per process."),
]


def url(conf: Any) -> str:
    """The configured URL, or that of the SQLite file under state_path."""
    return conf.database.connection or f"sqlite:///{Path(conf.state_path).resolve()}/hullwright.db"
