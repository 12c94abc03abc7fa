"""Who may do what: a small set of oslo.policy rules with Nova's names, and a cached decision.

Two kinds of rules only: an administrator, or somebody of the project that owns the thing. A policy file may change each rule; it is
read when the process starts.

The rules, and so the file, cover the Compute API. The image, network, volume and Build APIs ask only whose a thing is, and whether the
caller is an administrator.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import falcon
from oslo_policy import policy

from hullwright.api.context import Caller, caller
from hullwright.objects.errors import Forbidden

ADMIN = "rule:admin_api"
ADMIN_OR_OWNER = "rule:admin_or_owner"
ANYBODY = "@"

_PREFIX = "os_compute_api:"

_RULES: dict[str, tuple[str, str]] = {
    "servers:create": (ADMIN_OR_OWNER, "Create a server."),
    "servers:create:forced_host": (ADMIN, "Create a server on a host of one's choice: az:host, host, hypervisor_hostname."),
    "servers:create:zero_disk_flavor": (ADMIN, "Create a server from an image with a flavor whose root disk is 0 GB."),
    "servers:index": (ADMIN_OR_OWNER, "List servers."),
    "servers:index:get_all_tenants": (ADMIN, "List the servers of all projects."),
    "servers:index:deleted": (ADMIN, "List deleted servers."),
    "servers:show": (ADMIN_OR_OWNER, "Show a server."),
    "servers:update": (ADMIN_OR_OWNER, "Change a server's name, description, access addresses."),
    "servers:delete": (ADMIN_OR_OWNER, "Delete a server."),
    "servers:start": (ADMIN_OR_OWNER, "Start a server."),
    "servers:stop": (ADMIN_OR_OWNER, "Stop a server."),
    "servers:reboot": (ADMIN_OR_OWNER, "Reboot a server."),
    "servers:show:fault_details": (ADMIN, "See a fault's details: host, step, cause."),
    "os-extended-server-attributes": (ADMIN, "See where a server runs and its libvirt name."),
    "os-lock-server:lock": (ADMIN_OR_OWNER, "Lock a server."),
    "os-lock-server:unlock": (ADMIN_OR_OWNER, "Unlock a server."),
    "os-lock-server:unlock_override": (ADMIN, "Act on a locked server."),
    "os-console-output": (ADMIN_OR_OWNER, "Read a server's console log."),
    "os-admin-actions:reset_state": (ADMIN, "Set a server's state without doing anything."),
    "os-server-metadata": (ADMIN_OR_OWNER, "Read and change a server's metadata."),
    "os-server-tags": (ADMIN_OR_OWNER, "Read and change a server's tags."),
    "os-instance-actions": (ADMIN_OR_OWNER, "See what was done to a server."),
    "os-instance-actions:events:details": (ADMIN, "See hosts and traces in a server's actions."),
    "os-volumes-attachments": (ADMIN_OR_OWNER, "See a server's volumes."),
    "os-attach-interfaces": (ADMIN_OR_OWNER, "See a server's network cards."),
    "os-flavor-manage": (ADMIN, "Create, change and delete flavors."),
    "os-flavor-access": (ADMIN, "See who may use a flavor."),
    "os-keypairs": (ANYBODY, "Read and change one's own key pairs."),
    "os-keypairs:other_users": (ADMIN, "Read and change the key pairs of others."),
    "os-hypervisors": (ADMIN, "See hosts."),
    "os-services": (ADMIN, "See, enable and disable services."),
    "os-availability-zone:list": (ANYBODY, "See availability zones."),
    "os-availability-zone:detail": (ADMIN, "See the hosts of availability zones."),
    "os-aggregates:index": (ADMIN, "List host aggregates."),
    "os-aggregates:show": (ADMIN, "Show a host aggregate."),
    "os-aggregates:create": (ADMIN, "Create a host aggregate."),
    "os-aggregates:update": (ADMIN, "Change a host aggregate's name or zone."),
    "os-aggregates:delete": (ADMIN, "Delete a host aggregate."),
    "os-aggregates:add_host": (ADMIN, "Put a host into an aggregate."),
    "os-aggregates:remove_host": (ADMIN, "Take a host out of an aggregate."),
    "os-aggregates:set_metadata": (ADMIN, "Change a host aggregate's metadata."),
    "os-server-groups:index": (ADMIN_OR_OWNER, "List a project's server groups."),
    "os-server-groups:index:all_projects": (ADMIN, "List the server groups of all projects."),
    "os-server-groups:create": (ADMIN_OR_OWNER, "Create a server group."),
    "os-server-groups:show": (ADMIN_OR_OWNER, "Show a server group."),
    "os-server-groups:delete": (ADMIN_OR_OWNER, "Delete a server group."),
    "os-quota-sets:show": (ADMIN_OR_OWNER, "See a project's quota."),
}


def list_rules() -> list[Any]:
    """The rules and their defaults, as oslopolicy-sample-generator wants them."""
    base = [
        policy.RuleDefault("admin_api", "is_admin:True", "An administrator."),
        policy.RuleDefault(
            "admin_or_owner", "is_admin:True or project_id:%(project_id)s", "An administrator, or the project that owns it."
        ),
    ]
    return base + [policy.RuleDefault(_PREFIX + name, check, why) for name, (check, why) in _RULES.items()]


class Policy:
    """Decides, and remembers its decisions: the same caller asks for the same things again and again."""

    def __init__(self, conf: Any) -> None:
        """Read the policy file of [oslo_policy], if there is one."""
        self._enforcer = policy.Enforcer(conf)
        self._enforcer.register_defaults(list_rules())
        self._enforcer.load_rules()
        self._decide = lru_cache(maxsize=4096)(self._ask)

    def allows(self, who: Caller, rule: str, project_id: str | None = None, user_id: str | None = None) -> bool:
        """Whether `who` may do `rule` to a thing of that project and user; by default the caller's own."""
        return self._decide(who, rule, project_id or who.project_id, user_id or who.user_id)

    def require(self, req: falcon.Request, rule: str, project_id: str | None = None, user_id: str | None = None) -> Caller:
        """The caller, if allowed.

        Raises: Forbidden.
        """
        who = caller(req)
        if not self.allows(who, rule, project_id, user_id):
            raise Forbidden(reason=f"Policy doesn't allow {_PREFIX}{rule} to be performed.")
        return who

    def _ask(self, who: Caller, rule: str, project_id: str, user_id: str) -> bool:
        creds = {
            "project_id": who.project_id,
            "user_id": who.user_id,
            "roles": list(who.roles),
            "is_admin": who.is_admin,
        }
        return bool(self._enforcer.enforce(_PREFIX + rule, {"project_id": project_id, "user_id": user_id}, creds))
