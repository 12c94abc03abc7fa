"""Who the commands say they are, to an API behind Keystone: the cloud that --os-cloud or OS_CLOUD names, as for the OpenStack client.

openstacksdk reads clouds.yaml and the OS_* variables, keystoneauth gets tokens and renews them.
Not for: installations without Keystone, where nobody is asked.
"""

from __future__ import annotations

from typing import Any

import requests
from requests.auth import AuthBase

from hullwright.objects.errors import HullwrightError

_COMPUTE_PATH = "/v2.1"


class NotAuthenticated(HullwrightError):
    """No token is to be had."""

    message = "No token for cloud {cloud}: {reason}"
    hint = "The OpenStack client reads the same: see what `openstack --os-cloud NAME token issue` says."


class Identity(AuthBase):
    """A cloud of clouds.yaml: puts a valid token into each request, and knows where the API is."""

    def __init__(self, cloud: str) -> None:
        """Read the cloud's configuration; nobody is asked yet.

        Raises: NotAuthenticated.
        """
        import openstack.config  # it costs a third of a second, which only those pay who need it
        from keystoneauth1.exceptions import ClientException
        from openstack.exceptions import ConfigException

        self.cloud = cloud
        self._foreign = (ClientException, ConfigException)
        try:
            self._region = openstack.config.OpenStackConfig().get_one(cloud)
            self._session = self._region.get_session()
        except self._foreign as error:
            raise NotAuthenticated(cloud=cloud, reason=str(error)) from error

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token, a new one when the last is about to expire.

        Raises: NotAuthenticated.
        """
        try:
            token = self._session.get_token()
        except self._foreign as error:
            raise NotAuthenticated(cloud=self.cloud, reason=str(error)) from error
        if token:  # not every way to authenticate has one
            request.headers["X-Auth-Token"] = token
        return request

    def url(self) -> str:
        """The root of the API: what is before /v2.1 in the cloud's compute endpoint.

        Raises: NotAuthenticated.
        """
        try:
            found = self._region.get_endpoint("compute") or self._session.get_endpoint(
                service_type="compute",
                interface=self._region.get_interface("compute"),
                region_name=self._region.get_region_name("compute"),
            )
        except self._foreign as error:
            raise NotAuthenticated(cloud=self.cloud, reason=str(error)) from error
        root, path, _ = str(found or "").partition(_COMPUTE_PATH)
        if not path:
            raise NotAuthenticated(cloud=self.cloud, reason=f"its compute endpoint is {found}, which does not end in {_COMPUTE_PATH}")
        return root

    def prepare(self, session: requests.Session) -> None:
        """Have a session use the tokens, and the certificates that the cloud's configuration names."""
        session.auth = self
        verify: Any
        verify, cert = self._region.get_requests_verify_args()
        session.verify, session.cert = verify, cert
