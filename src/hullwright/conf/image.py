"""[image]: the image service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oslo_config import cfg

GROUP = "image"
OPTS = [
    cfg.StrOpt("driver", default="local", help="Image service. local: the embedded one, a directory with checksums."),
    cfg.StrOpt(
        "path",
        help="Directory of the local driver's images. The API and every conductor must see it: on several machines a shared file "
        "system. Unset: images under state_path.",
    ),
    cfg.IntOpt("max_size_gb", default=1024, min=1, help="Largest image that may be uploaded, in GiB."),
]


def directory(conf: Any) -> Path:
    """Where the local driver's images lie."""
    return Path(conf.image.path or Path(conf.state_path, "images")).absolute()
