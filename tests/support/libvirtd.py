"""Real libvirtds and a real guest for tests: fixtures `libvirt_host`, `two_libvirt_hosts`, `guest_image`; `Libvirtd`, `session_host`.

Each test session has daemons of its own (tools/libvirtd), whatever the system runs, each in a network namespace of its own,
and takes them down with all their guests and networks at its end; what a killed session left is taken down by the next one.
A machine that cannot have them fails the tests with the reason: they are never skipped.

Not for: connections, domains, networks; tests make those through the drivers, or with libvirt-python.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "libvirtd"
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
START_SECONDS = 120
STOP_SECONDS = 120
KILL_SECONDS = 30


class LibvirtdError(Exception):
    """A libvirtd does not start or stop; the message is what tools/libvirtd said."""


def _runs(pid: int) -> bool:
    """Whether the process is there and no zombie, which nobody may ever ask for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Libvirtd:
    """One host: a libvirtd of our own with its state under `directory`.

    Disks and console files may be anywhere: the daemon sees the machine's file system, and its guests run as root.
    """

    def __init__(self, name: str, directory: Path, netns: str | None = None) -> None:
        """`netns`: name of a network namespace of its own, made when it is started and gone when it is purged.

        Without one, bridges and subnets are this machine's, common to all daemons.
        """
        self.name = name
        self.directory = directory
        self.netns = netns

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.directory}/run/libvirt-sock"

    @property
    def pid(self) -> int | None:
        """The daemon's process id; None when it does not run."""
        try:
            pid = int((self.directory / "libvirtd.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if Path("/proc", str(pid)).exists() else None

    def run(self, *command: str, timeout_seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command where the host's bridges are, as root: ping a guest, say."""
        return subprocess.run(
            [*AS_ROOT, *self.inside(), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def answers_ping(self, address: str, seconds: float = 20.0) -> bool:
        """True as soon as a guest answers."""
        return self.run("ping", "-c", "1", "-w", str(int(seconds)), address, timeout_seconds=seconds + 10).returncode == 0

    def start(self) -> None:
        """Start it and wait until it answers; nothing to do when it runs. Raises: LibvirtdError."""
        self._have_netns()
        self._tool("start", START_SECONDS)

    def stop(self, purge: bool = True) -> None:
        """Stop it; with `purge` its guests, networks and directory go too. Raises: LibvirtdError."""
        self._have_netns()  # to purge a daemon that died it is started once more
        self._tool("stop", STOP_SECONDS, *(["--purge"] if purge else []))
        if purge and self.netns is not None:
            subprocess.run([*AS_ROOT, "ip", "netns", "del", self.netns], check=True, timeout=30)

    def kill(self) -> None:
        """End the daemon as a crash does, and wait for its end. Its guests and networks stay; `start` finds them again."""
        pid = self.pid
        if pid is None:
            return
        subprocess.run([*AS_ROOT, "kill", "-KILL", str(pid)], check=True)
        deadline = time.monotonic() + KILL_SECONDS
        while _runs(pid):
            if time.monotonic() > deadline:
                raise LibvirtdError(f"process {pid} has not ended {KILL_SECONDS} s after SIGKILL")
            time.sleep(0.01)

    def _have_netns(self) -> None:
        if self.netns is not None and not Path("/run/netns", self.netns).exists():
            subprocess.run([*AS_ROOT, "ip", "netns", "add", self.netns], check=True, timeout=30)
            self.run("ip", "link", "set", "lo", "up")

    def inside(self) -> list[str]:
        """The words before a command that runs where the host's bridges are."""
        return [] if self.netns is None else ["ip", "netns", "exec", self.netns]

    def _tool(self, action: str, timeout_seconds: float, *more: str) -> None:
        as_root = AS_ROOT if self.netns is not None else []
        command = [*as_root, *self.inside(), str(TOOL), action, "--name", self.name, "--dir", str(self.directory), *more]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if done.returncode != 0:
            raise LibvirtdError(done.stdout.strip())


@dataclass(frozen=True)
class GuestImage:
    """The files that tools/guest-image makes; tools/guest/init says what the guest writes on its console."""

    qcow2: Path
    raw: Path
    kernel: Path
    ramdisk: Path


def make_guest_image(directory: Path = ROOT / "var" / "guest") -> GuestImage:
    """Make the guest image, or find it made and whole. Raises: RuntimeError with what the tool said."""
    done = subprocess.run(
        [str(ROOT / "tools" / "guest-image"), str(directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"tools/guest-image: {done.stderr.strip()}")
    return GuestImage(
        qcow2=directory / "guest.qcow2",
        raw=directory / "guest.raw",
        kernel=directory / "vmlinuz",
        ramdisk=directory / "initrd.img",
    )


# Directories are named by the session's process, so that sessions do not meet and a dead one's daemons are known.
_SESSIONS = ROOT / "var" / "test-libvirt"


def _netns(session: Path, name: str) -> str:
    return f"hullwright-{session.name}-{name}"


def _purge_dead_sessions() -> None:
    for session in _SESSIONS.glob("[0-9]*"):
        if Path("/proc", session.name).exists():
            continue
        for directory in session.iterdir():
            Libvirtd(directory.name, directory, _netns(session, directory.name)).stop()
        with contextlib.suppress(OSError):  # another session was first
            session.rmdir()


@contextlib.contextmanager
def session_host(name: str) -> Iterator[Libvirtd]:
    """A libvirtd of this test session, started; taken down with all that is on it. A failure to start fails the test."""
    session = _SESSIONS / str(os.getpid())
    host = Libvirtd(name, session / name, _netns(session, name))
    try:
        _purge_dead_sessions()
        session.mkdir(parents=True, exist_ok=True)  # ours, where sudo makes the rest
        host.start()
    except LibvirtdError as error:
        pytest.fail(f"no libvirtd for the tests: {error}", pytrace=False)
    try:
        yield host
    finally:
        host.stop()
        with contextlib.suppress(OSError):  # another host's is still in it
            session.rmdir()


@pytest.fixture(scope="session")
def libvirt_host() -> Iterator[Libvirtd]:
    """A running libvirtd, the same one for the whole session: leave it running and as empty as it was."""
    with session_host("hull-a") as host:
        yield host


@pytest.fixture(scope="session")
def _second_libvirt_host() -> Iterator[Libvirtd]:
    with session_host("hull-b") as host:
        yield host


@pytest.fixture(scope="session")
def two_libvirt_hosts(libvirt_host: Libvirtd, _second_libvirt_host: Libvirtd) -> tuple[Libvirtd, Libvirtd]:
    """Two running libvirtds as two hosts; the first is `libvirt_host`. Each has a network namespace of its own, as hosts do."""
    return libvirt_host, _second_libvirt_host


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    """A small bootable guest, made once and kept in var/guest."""
    try:
        return make_guest_image()
    except RuntimeError as error:
        pytest.fail(f"no guest image for the tests: {error}", pytrace=False)


_HAVE_HOSTS = {"libvirt_host", "_second_libvirt_host", "_service", "_up"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a libvirtd, so that `-m 'not libvirt'` leaves it out."""
    for item in items:
        if not _HAVE_HOSTS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("libvirt")
