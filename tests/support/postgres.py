"""A real PostgreSQL for tests: fixtures `postgres_server`, `postgres_url`, `fresh_postgres_url`; `PostgresServer`.

Each test session has a server of its own from the system's package, on a free port of 127.0.0.1, with its data in
memory and no care for durability. It ends with the session, also when the session is killed. A machine
without PostgreSQL fails the tests with the reason: they are never skipped.

Not for: schemas. A test migrates one database, names it as a template, and has copies of it.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

START_SECONDS = 60
SUPERUSER = "hullwright"
_PREFIX = "hullwright-postgres-"


class PostgresError(Exception):
    """There is no PostgreSQL here, or it does not start; the message says why."""


def _room() -> Path:
    """Where data directories are made: in memory when the machine lets us."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _binaries() -> Path:
    """The newest server's directory of programs. Debian keeps them out of PATH, one directory for each version."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    if on_path:
        return Path(on_path).parent
    raise PostgresError("PostgreSQL's server is missing: run tools/setup --test (Debian package postgresql)")


class PostgresServer:
    """One server with an empty data directory. `start` and `stop` belong to the thread that outlives its use."""

    def __init__(self, **settings: str) -> None:
        """`settings`: of the server, besides or instead of those for tests."""
        self.port = 0
        self._settings = settings
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the data directory, start the server, wait until it answers. Raises: PostgresError."""
        _remove_dead_sessions()
        binaries = _binaries()
        self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_room()))
        self._own(self._directory)
        data = self._directory / "data"
        options = f"-D {data} -U {SUPERUSER} -A trust -E UTF8 --no-locale --no-sync".split()
        done = subprocess.run(
            [*self._unprivileged(), str(binaries / "initdb"), *options],
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self.stop()
            raise PostgresError(f"initdb: {done.stderr.strip() or done.stdout.strip()}")
        for attempt in range(3):  # the port may be taken between the look and the use
            try:
                self._launch(binaries, data)
                return
            except PostgresError:
                if attempt == 2:
                    self.stop()
                    raise

    def crash(self) -> None:
        """Stop the server at once, as by pg_ctl's `immediate`; the data stays for `revive`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def revive(self) -> None:
        """Start it again after `crash`, on the same port. Raises: PostgresError."""
        assert self._directory is not None
        self._launch(_binaries(), self._directory / "data", self.port)

    def halt(self) -> Path:
        """Stop the server in order; answers its directory, which stays for `clone`."""
        assert self._process is not None
        assert self._directory is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)
        self._process = None
        return self._directory

    @classmethod
    def clone(cls, directory: Path, **settings: str) -> "PostgresServer":
        """A running server on a copy of what `halt` left. Raises: PostgresError."""
        made = cls(**settings)
        made._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_room()))
        made._own(made._directory)
        subprocess.run(["cp", "-a", str(directory / "data"), str(made._directory)], check=True)
        made._launch(_binaries(), made._directory / "data")
        return made

    def stop(self) -> None:
        """Stop the server and remove its data."""
        self.crash()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def create_database(self, template: str = "template1", name: str | None = None) -> str:
        """Create a database as a copy of `template` (which nobody may be connected to) and answer its URL."""
        name = name or f"test_{next(self._numbers)}"
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def make_template(self, name: str, prepare: Callable[[str], None]) -> str:
        """Create the database `name`, let `prepare(url)` fill it, and answer `name` for `create_database`.

        `prepare` closes its connections: a database that is in use cannot be copied.
        """
        prepare(self.create_database(name=name))
        return name

    def drop_database(self, url: str) -> None:
        """Drop a database by its URL, whoever is still connected; gone already is done."""
        name = url.rpartition("/")[2]
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with self._connect() as connection:
            connection.execute(statement)

    def _connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host="127.0.0.1", port=self.port, user=SUPERUSER, dbname="postgres", autocommit=True, connect_timeout=10)

    def _launch(self, binaries: Path, data: Path, port: int = 0) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            self.port = probe.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
            "max_connections": 200,
            "shared_buffers": "64MB",
        } | self._settings
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        log = data.parent / "server.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*self._unprivileged("--pdeathsig", "QUIT"), str(binaries / "postgres"), "-D", str(data), *options],
                cwd=data.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(psycopg.OperationalError), self._connect():
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                self._process = None
                raise PostgresError(f"PostgreSQL does not start: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.02)

    @staticmethod
    def _unprivileged(*more: str) -> list[str]:
        """The server refuses to run as root, so it runs as the package's user then."""
        if os.geteuid() != 0:
            return ["setpriv", *more]
        return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", *more]

    @staticmethod
    def _own(directory: Path) -> None:
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                raise PostgresError("the user postgres is missing: run tools/setup --test") from None
            os.chown(directory, user.pw_uid, user.pw_gid)


def _remove_dead_sessions() -> None:
    """The data of sessions that were killed (their servers went with them)."""
    for directory in _room().glob(f"{_PREFIX}*-*"):
        pid = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL, the same one for the whole session."""
    server = PostgresServer()
    try:
        server.start()
    except PostgresError as error:
        pytest.fail(f"no PostgreSQL for the tests: {error}", pytrace=False)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """The SQLAlchemy URL of a database that the whole session shares."""
    return postgres_server.create_database(name="shared")


@pytest.fixture
def fresh_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database for one test, dropped after it."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a PostgreSQL, so that `-m 'not postgresql'` leaves it out."""
    for item in items:
        if "postgres_server" in getattr(item, "fixturenames", ()):
            item.add_marker("postgresql")
