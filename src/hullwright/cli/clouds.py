"""clouds.yaml: tells the OpenStack client where an installation without Keystone is."""

from __future__ import annotations

from pathlib import Path

_TEMPLATE = """\
# Written by `hullwright up`. Use it with: export OS_CLIENT_CONFIG_FILE={path}
# and openstack --os-cloud hullwright ...
clouds:
  hullwright:
    auth_type: none
    auth:
      endpoint: {url}
    compute_endpoint_override: {url}/v2.1
    image_endpoint_override: {url}/image
    network_endpoint_override: {url}/network
    volume_endpoint_override: {url}/volume/v3
    block_storage_endpoint_override: {url}/volume/v3
    identity_api_version: '3'
    interface: public
    region_name: RegionOne
"""


def write(path: Path, url: str) -> None:
    """Write it for the API at `url`; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(_TEMPLATE.format(path=path.resolve(), url=url.rstrip("/")))
    part.replace(path)
