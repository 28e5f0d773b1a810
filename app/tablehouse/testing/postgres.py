"""A real PostgreSQL on this machine, from the installed programs, for the demo and tests of Debezium."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tablehouse.errors import SetupError
from tablehouse.testing import processes

#: The database's only user, without a password: it only listens on 127.0.0.1.
USER = "postgres"

_PROGRAMS = ("initdb", "postgres", "psql")
_DEBIAN = Path("/usr/lib/postgresql")  # has a folder per version, none of them on the PATH
_DEADLINE = 60.0  # seconds; 1 or 2 are usual
_STOP_GRACE = 10.0
_NOT_INSTALLED = (
    "PostgreSQL is not installed ({program} is neither on the PATH nor below {debian}): apt-get install postgresql, "
    "dnf install postgresql-server, or brew install postgresql, and try again"
)
# Durability across failures of the machine is not needed here.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "fsync": "off",
    "max_connections": "20",
    "timezone": "UTC",
}


class Postgres(processes.Service):
    """A database cluster with logical replication on 127.0.0.1, in a temporary folder.

    On Linux it ends with this process, even if that is killed. PostgreSQL refuses to run as root: started by root, it
    runs as the user postgres, or else nobody. Not thread-safe.
    """

    def __init__(self, *, port: int | None = None) -> None:
        self.port = processes.free_port() if port is None else port
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return once it answers.

        Raises SetupError, with nothing left behind: PostgreSQL is not installed, the port is busy, or it did not come
        up (with the end of its log).
        """
        programs = {name: program(name) for name in _PROGRAMS}
        if not processes.port_is_free(self.port):
            raise SetupError(f"port {self.port} of 127.0.0.1 is in use, and PostgreSQL needs it: choose another port")
        # Not in a private folder of root or another user, which the user of PostgreSQL could not access.
        self._folder = Path(tempfile.mkdtemp(prefix="tablehouse-postgres-"))
        try:
            self._process = self._launch(_as_other_user(self._folder), self._folder, programs)
            self._wait_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it and remove its folder."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)  # ends sessions, where SIGTERM waits for them
            try:
                self._process.wait(_STOP_GRACE)
            except subprocess.TimeoutExpired:
                processes.end([self._process], grace=0)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def command(self) -> list[str]:
        """Return the command line of psql for this database, for display."""
        return ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER]

    def run(self, sql: str, *, seconds: float = _DEADLINE) -> str:
        """Run statements in order up to the first failure, and return their unformatted output.

        Raises SetupError with psql's message, also at the deadline.
        """
        command = [program("psql"), *self.command()[1:], "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        try:
            done = subprocess.run(  # noqa: S603  a program that is installed
                command, input=sql, capture_output=True, text=True, check=False, encoding="utf-8", timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise SetupError(f"psql was not done after {seconds:g} s") from error
        if done.returncode != 0:
            raise SetupError(f"psql failed: {done.stderr.strip()}")
        return done.stdout

    def _launch(self, prefix: list[str], folder: Path, programs: Mapping[str, str]) -> subprocess.Popen[bytes]:
        data, log = str(folder / "data"), folder / "postgres.log"
        making = [programs["initdb"], "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        if processes.spawn([*prefix, *making], log=log).wait(_DEADLINE) != 0:
            raise SetupError(self._with_log("the folder of PostgreSQL could not be made"))
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items()]
        return processes.spawn([*prefix, programs["postgres"], "-D", data, *settings], log=log)

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _DEADLINE
        while True:
            try:
                self.run("SELECT 1", seconds=5)
            except SetupError as error:
                if process.poll() is not None:
                    raise SetupError(self._with_log("PostgreSQL ended while it was starting")) from error
                if time.monotonic() > deadline:
                    raise SetupError(self._with_log(f"PostgreSQL was not ready after {_DEADLINE:.0f} s")) from error
                time.sleep(0.1)
            else:
                return

    def _with_log(self, message: str) -> str:
        assert self._folder is not None  # noqa: S101  it is made first
        return f"{message}; the last lines of its log:\n{processes.last_lines(self._folder / 'postgres.log')}"


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs; raises SetupError with how to install it if there is none."""
    versions = sorted(_DEBIAN.glob("*/bin"), key=lambda folder: _number(folder.parent.name), reverse=True)
    folders = [*map(str, versions), *os.get_exec_path()]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise SetupError(_NOT_INSTALLED.format(program=name, debian=_DEBIAN))
    return found


def _number(version: str) -> float:
    return float(version) if version.replace(".", "", 1).isdigit() else 0.0


def _as_other_user(folder: Path) -> list[str]:
    """Return a command prefix to run as a user that PostgreSQL accepts, and make that user the owner of the folder."""
    if os.geteuid() != 0:
        return []
    user = next((user for user in (_user("postgres"), _user("nobody")) if user is not None), None)
    setpriv = shutil.which("setpriv")
    if user is None or setpriv is None:
        raise SetupError(
            "PostgreSQL does not run as root, and there is no user postgres or no setpriv: run as another user"
        )
    os.chown(folder, user.pw_uid, user.pw_gid)
    # Another user's process would outlive ours, since the kernel forgets the signal that spawn() asks for.
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig=KILL", "--"]


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
