"""The config drive as bytes: an ISO 9660 file system with the label that guests look for.

Not for: what is written in it; the caller hands over the files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePosixPath

import pycdlib

LABEL = "config-2"


def build(files: Mapping[str, bytes]) -> bytes:
    """An image with the files; keys are paths inside it, such as openstack/latest/meta_data.json."""
    iso = pycdlib.PyCdlib()
    # Guests read the Rock Ridge (Linux) or Joliet (Windows) names; the plain ones need only be valid, and each its own.
    iso.new(interchange_level=3, rock_ridge="1.09", joliet=3, vol_ident=LABEL)
    plain = {PurePosixPath("."): ""}
    paths = sorted(PurePosixPath(name) for name in files)
    directories = sorted({parent for path in paths for parent in path.parents} - {PurePosixPath(".")})
    for number, directory in enumerate(directories):
        plain[directory] = f"{plain[directory.parent]}/D{number:04d}"
        iso.add_directory(plain[directory], rr_name=directory.name, joliet_path=f"/{directory}")
    for number, path in enumerate(paths):
        content = files[str(path)]
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"{plain[path.parent]}/F{number:04d}.;1",
            rr_name=path.name,
            joliet_path=f"/{path}",
        )
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()
