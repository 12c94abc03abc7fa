"""One tree of errors. A class says its HTTP code, whether another host may help, who may read its text, and a hint for a person.

Not for: translating foreign errors; a driver does that once, at its own edge.
It has more than 400 lines because it is a list: one tree, read from top to bottom, each class a few lines.
The first line of a class's docstring explains it; `message` is a template filled from keyword arguments. Arguments are JSON scalars,
because an error that leaves a step is stored in the flow store and read back in another process.
Texts name hosts, and quote what they said: such a text is for administrators, and users read the class's explanation in its place. So it
is unless the class says that its text is for users; a class without a word on it tells nothing.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from hullwright.objects.placement import PlacementReport

Scalar = str | int | float | bool | None


class HullwrightError(Exception):
    """Base of all errors that Hullwright raises on purpose."""

    message: ClassVar[str] = "An error occurred: {reason}"
    code: ClassVar[int] = 500  # HTTP status, where the error reaches an API client
    hint: ClassVar[str] = ""  # what a person can do about it
    is_for_users: ClassVar[bool] = False  # its text names no host and quotes none

    def __init__(self, text: str | None = None, **fields: Scalar) -> None:
        """Take either the finished text, or the fields of the class's template (`reason` may be left out)."""
        self.fields = fields
        if text is None:
            text = self.message.format_map(_Blank(fields))
        super().__init__(text)

    @property
    def text(self) -> str:
        """The message as a person reads it."""
        return str(self.args[0])

    @property
    def text_for_users(self) -> str:
        """The message as who is no administrator may read it."""
        return self.text if self.is_for_users else self.explanation()

    @classmethod
    def explanation(cls) -> str:
        """What an error of this class means, whatever happened in particular."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]


def find(class_name: str | None) -> type[HullwrightError] | None:
    """The class of this tree with that name: what is left of an error that was stored."""
    found = globals().get(class_name or "")
    return found if inspect.isclass(found) and issubclass(found, HullwrightError) else None


def text_for_users(class_name: str | None, text: str) -> str:
    """As the property, of an error that was stored: its class's name and its text."""
    found = find(class_name)
    if found is None:
        return "Something unexpected went wrong."
    return text if found.is_for_users else found.explanation()


class _Blank(dict[str, Scalar]):
    """Lets a template be filled with fields missing, so that telling an error can never fail."""

    def __missing__(self, key: str) -> str:
        return _Unknown("?")


class _Unknown(str):
    """Stands for a field that is missing, whatever its format would be."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return str(self)


# --- Families -------------------------------------------------------------------------------------------------------


class BadRequest(HullwrightError):
    """The request is wrong in itself."""

    message = "{reason}"
    code = 400
    is_for_users = True


class Forbidden(HullwrightError):
    """The request is understood and not allowed."""

    message = "{reason}"
    code = 403
    is_for_users = True


class NotFound(HullwrightError):
    """The thing named does not exist, or not for this user."""

    message = "{kind} {id} could not be found."
    code = 404
    is_for_users = True


class Conflict(HullwrightError):
    """The thing's present state does not allow it."""

    message = "{reason}"
    code = 409
    is_for_users = True


class Unavailable(HullwrightError):
    """A part that we need does not answer; the same request may work later."""

    message = "{reason}"
    code = 503


class Reschedulable(HullwrightError):
    """A failure that another host may not have: the attempt is undone and the build moves on."""

    is_for_users = False  # it is about a host, whatever else it is


class BuildAbortException(HullwrightError):
    """A failure that no other host would mend: the build is undone and ends in ERROR."""

    message = "Build of instance {instance} aborted: {reason}"


# --- Requests -------------------------------------------------------------------------------------------------------


class InstanceNotFound(NotFound):
    """No such instance."""

    message = "Instance {id} could not be found."


class ImageNotFound(NotFound):
    """No such image."""

    message = "Image {id} could not be found."


class FlavorNotFound(NotFound):
    """No such flavor."""

    message = "Flavor {id} could not be found."


class HostNotFound(NotFound):
    """No such host."""

    message = "Compute host {id} could not be found."
    is_for_users = False


class NetworkNotFound(NotFound):
    """No such network."""

    message = "Network {id} could not be found."


class SubnetNotFound(NotFound):
    """No such subnet."""

    message = "Subnet {id} could not be found."


class PortNotFound(NotFound):
    """No such port."""

    message = "Port {id} could not be found."


class VolumeNotFound(NotFound):
    """No such volume."""

    message = "Volume {id} could not be found."


class KeypairNotFound(NotFound):
    """No such key pair."""

    message = "Keypair {id} not found for user {user}"


class FlavorExists(Conflict):
    """A flavor of that name or id is there already."""

    message = "Flavor with {field} {id} already exists."


class KeypairExists(Conflict):
    """A key pair of that name is there already."""

    message = "Key pair '{id}' already exists."


class HostExists(Conflict):
    """A host of that name is registered already."""

    message = "Host {id} is registered already."


class HostZoneInUse(Conflict):
    """A host's instances were asked into the zone that it is in."""

    message = "Host {host} cannot move to availability zone {zone}: {count} of its servers asked for the one that it is in"


class AggregateNotFound(NotFound):
    """No such aggregate."""

    message = "Aggregate {id} could not be found."


class AggregateHostNotFound(NotFound):
    """The host is not in the aggregate."""

    message = "Aggregate {id} has no host {host}."


class AggregateNameExists(Conflict):
    """An aggregate of that name is there already."""

    message = "Aggregate {name} already exists."


class AggregateHostExists(Conflict):
    """The host is in the aggregate already."""

    message = "Aggregate {id} already has host {host}."


class InvalidAggregateAction(Conflict):
    """The aggregate's hosts do not allow it."""

    message = "Unable to perform action '{action}' on aggregate {id}. Reason: {reason}."


class ServerGroupNotFound(NotFound):
    """No such server group."""

    message = "Instance group {id} could not be found."


class InstanceInvalidState(Conflict):
    """The action is not possible in this state."""

    message = "Cannot '{action}' instance {id} while it is in {attribute} {state}"


class ImageProtected(Forbidden):
    """The image is protected against deletion."""

    message = "Image {id} is protected and cannot be deleted."


class ImageInUse(Conflict):
    """A build or a new volume reads the image right now."""

    message = "Image {id} could not be deleted because it is in use: a build or a new volume reads it."


class ImageUploadConflict(Conflict):
    """Somebody uploads the same image right now."""

    message = "Another upload of image {id} is under way."


class ImageTooLarge(BadRequest):
    """The image has more bytes than are allowed."""

    message = "Image {id} is larger than {max_bytes} bytes, which is all that is allowed."
    code = 413


class ImageStorageFull(HullwrightError):
    """The disk that holds images has no room."""

    message = "There is no room to store image {id}: {reason}"
    code = 413  # what the image API answers
    hint = "Delete images that nobody needs, or have an operator give the image directory more room."


class ImageStorageError(Unavailable):
    """The directory that holds images cannot be used."""

    message = "Image {id} cannot be stored or read: {reason}"
    hint = "Check that the image directory is there and belongs to the user that runs Hullwright."


class PortInUse(Conflict):
    """The port belongs to another instance."""

    message = "Port {id} is still in use."


class NetworkInUse(Conflict):
    """Ports are left on the network."""

    message = "Unable to complete operation on network {id}. There are one or more ports still in use on the network."


class SubnetInUse(Conflict):
    """A port has an address of the subnet."""

    message = "Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet."


class MacAddressInUse(Conflict):
    """Somebody has that MAC."""

    message = "Unable to complete operation for network {network}. The mac address {mac} is in use."


class FixedIpAlreadyInUse(Conflict):
    """Somebody has that address."""

    message = "Fixed IP address {address} is already in use on network {network}."


class InvalidIpForNetwork(BadRequest, BuildAbortException):
    """The address asked for cannot be had on that network."""

    message = "IP address {address} is not a valid IP for any of the subnets on network {network}."


class VolumeInvalidState(Conflict):
    """The volume is not available for this."""

    message = "Volume {id} is {state}; it must be {wanted}."


class FlavorDiskTooSmall(BadRequest, BuildAbortException):
    """The image does not fit on the flavor's disk."""

    message = "Flavor's disk is too small for requested image. Flavor disk is {flavor_bytes} bytes, image is {image_bytes} bytes."
    hint = "Choose a flavor with a larger disk."


class FlavorMemoryTooSmall(BadRequest, BuildAbortException):
    """The image asks for more memory than the flavor has."""

    message = "Flavor's memory is too small for requested image: it needs {image_mb} MB and the flavor has {flavor_mb} MB."
    hint = "Choose a flavor with more memory."


# --- Builds ---------------------------------------------------------------------------------------------------------


class NoValidHost(HullwrightError):
    """No host fits; the reason says which check removed how many."""

    message = "No valid host was found. {reason}"
    is_for_users = True
    hint = "Ask for less, wait for room, or have an operator add or enable a host."
    report: PlacementReport | None = None  # set by the scheduler; lost when the error is stored and read back


class MaxRetriesExceeded(HullwrightError):
    """Every attempt allowed was made and failed; the reason tells each."""

    message = "Exceeded maximum number of retries. {reason}"
    is_for_users = True
    hint = "See the build's timeline for what failed on each host."


class ComputeResourcesUnavailable(Reschedulable):
    """The host has no room left, though it had when it was chosen."""

    message = "Insufficient compute resources on {host}: {reason}"


class ServerGroupPolicyViolated(ComputeResourcesUnavailable):
    """A member of the server group was quicker: the host is no more one that the group's policy allows."""

    message = "Host {host} would break the {policy} policy of server group {group}."


class StepFailed(Reschedulable):
    """A step raised something that is not one of ours; another host may not have the cause."""

    message = "{step} failed: {error}: {reason}"


class UnexpectedTaskStateError(HullwrightError):
    """The instance is not in the state that the writer expected: somebody else acted."""

    message = "Conflict updating instance {instance}. Expected: {expected}. Actual: {actual}"
    code = 409
    is_for_users = True


class UnexpectedDeletingTaskStateError(UnexpectedTaskStateError):
    """The user deleted the instance meanwhile; delete wins."""


class BuildTimedOut(BuildAbortException):
    """The build did not end in the time that it has."""

    message = "Build of instance {instance} did not end within {seconds} s"
    is_for_users = True
    hint = "See the build's timeline for where the time went; [conductor] build_timeout says how long builds may take."


class BuildCancelled(HullwrightError):
    """The user deleted the instance while it was being built: undo, quietly."""

    message = "Build of instance {instance} was cancelled by a delete."
    is_for_users = True


# --- Drivers --------------------------------------------------------------------------------------------------------


class HypervisorUnavailable(Reschedulable, Unavailable):
    """The host's hypervisor does not answer."""

    message = "Hypervisor of host {host} cannot be reached: {reason}"
    hint = "Check that libvirtd runs there and that the host's URI is right."


class HypervisorTimeout(HypervisorUnavailable):
    """A call to the host's hypervisor never came back."""

    message = "Host {host} did not answer within {seconds:.0f} s (step {step})"
    hint = "Check the host's libvirtd and storage; raise [conductor] step_timeouts if such a step may take longer."


class ServiceTimeout(Unavailable):
    """A call to another service, for something that is on no host yet, never came back."""

    message = "The service did not answer within {seconds:.0f} s (step {step})"
    is_for_users = True
    hint = "Check the network, volume and image services; raise [conductor] step_timeouts if such a step may take longer."


class HypervisorError(Reschedulable):
    """The hypervisor refused or failed an operation."""

    message = "{operation} failed on host {host}: {reason}"


class GuestNameTaken(Reschedulable):
    """The host has a guest of that name that is not this one: another installation's, or one that a restored backup does not know."""

    message = "Host {host} has another guest named {name}, with uuid {other}"
    hint = "`hullwright doctor` lists guests that are on no record. One libvirt serves one installation."


class GuestRefused(HypervisorError):
    """The host can run guests, but none shaped as this one's image or block devices ask; another host may have the parts."""

    hint = "Look at the image's hw_ properties: bus, card, display, machine type, firmware. Not every host has every one of them."


class HostDiskFull(Reschedulable):
    """The host has no room on its disk."""

    message = "No space left on host {host}: {reason}"
    hint = "Free space on the host or lower its disk allocation ratio."


class ImageUnacceptable(BadRequest, BuildAbortException):
    """The image's bytes cannot or must not be used."""

    message = "Image {image} is unacceptable: {reason}"
    hint = "Upload a whole image in the format that it declares, without backing or data file."


class ImageUnavailable(BuildAbortException):
    """The image is gone or not active."""

    message = "Image {image} is not available: {reason}"


class ImageCorrupt(Reschedulable):
    """The bytes that arrived do not have the image's checksum."""

    message = "Image {image} arrived corrupt on host {host}: {reason}"


class NetworkError(Reschedulable):
    """A port could not be plugged on the host."""

    message = "Port {port} could not be plugged on host {host}: {reason}"


class NetworkRefused(NetworkError):
    """The host can carry networks, but not this one as it is defined: its range is taken there, or it changed under guests."""

    hint = "Give the network a range that no host and no other network uses; a network that guests use keeps the subnets that it has."


class NoMoreFixedIps(BuildAbortException):
    """The subnet has no free address."""

    message = "No fixed IP addresses available for network {network}."
    code = 400
    is_for_users = True
    hint = "Free a port or add a subnet to the network."


class VolumeError(BuildAbortException):
    """A volume could not be made or attached, wherever the instance would be."""

    message = "Volume {volume}: {reason}"


class VolumeConnectError(Reschedulable):
    """A volume could not be connected to this host."""

    message = "Volume {volume} could not be connected to host {host}: {reason}"


class VolumeElsewhere(VolumeConnectError):
    """The volume's bytes are on another host; this one is not to blame."""


# --- Durability: not Exceptions, so that TaskFlow neither reverts nor retries because of them -------------------------------


class EngineStopped(BaseException):
    """Stops an engine where it stands and leaves its flow resumable."""


class LeaseLost(EngineStopped):
    """Another conductor has the job, or our lease ran out: act no more."""


class StoreUnavailable(EngineStopped):
    """The database does not answer: nothing is undone because of that."""


class RoomAwaited(EngineStopped):
    """The build waits in the queue, where its step has put it, until there is room."""


class JobUnloadable(HullwrightError):
    """A job's flow cannot be rebuilt by this code."""

    message = "Job {id} cannot be loaded: {reason}"
    hint = "Install code that knows this flow's version. If the job is parked by then: `hullwright job release ID`."
