"""A real PostgreSQL on this machine, of the programs that are installed: for the demo and tests of Debezium."""

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

#: The database's only user, who needs no password: it listens on 127.0.0.1 alone.
USER = "postgres"

_PROGRAMS = ("initdb", "postgres", "psql")
_DEBIAN = Path("/usr/lib/postgresql")  # has a folder for each version, none of them on the PATH
_DEADLINE = 60.0  # seconds; 1 or 2 are usual
_STOP_GRACE = 10.0
_NOT_INSTALLED = (
    "PostgreSQL is not installed ({program} is neither on the PATH nor below {debian}): apt-get install postgresql, "
    "dnf install postgresql-server, or brew install postgresql, and try again"
)
# What is lost when the machine itself dies does not matter here.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "fsync": "off",
    "max_connections": "20",
    "timezone": "UTC",
}


class Postgres(processes.Service):
    """A database cluster with logical replication on 127.0.0.1, in a folder of its own that goes with it.

    On Linux it dies with this process, even when it is killed. PostgreSQL refuses to run as root: started by root, it
    runs as the user postgres, or else nobody. Not for use from several threads at once.
    """

    def __init__(self, *, port: int | None = None) -> None:
        self.port = processes.free_port() if port is None else port
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers.

        Raises SetupError, with nothing left behind: PostgreSQL is not installed, the port is busy, or it did not come
        up (with the end of its log).
        """
        programs = {name: program(name) for name in _PROGRAMS}
        if not processes.port_is_free(self.port):
            raise SetupError(f"port {self.port} of 127.0.0.1 is in use, and PostgreSQL needs it: choose another port")
        # Not below a folder of root's or a user's own, where the user that PostgreSQL runs as could not get to.
        self._folder = Path(tempfile.mkdtemp(prefix="tablehouse-postgres-"))
        try:
            self._process = self._launch(_as_other_user(self._folder), self._folder, programs)
            self._wait_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and remove its folder."""
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
        """Return the command line of psql for this database, to be shown to people."""
        return ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER]

    def run(self, sql: str, *, seconds: float = _DEADLINE) -> str:
        """Run statements in order, the first that fails ends it, and return what they print, without any decoration.

        Raises SetupError with what psql says, also when the time runs out.
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
    """Return the path of one of PostgreSQL's programs; SetupError says how to install it where there is none."""
    versions = sorted(_DEBIAN.glob("*/bin"), key=lambda folder: _number(folder.parent.name), reverse=True)
    folders = [*map(str, versions), *os.get_exec_path()]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise SetupError(_NOT_INSTALLED.format(program=name, debian=_DEBIAN))
    return found


def _number(version: str) -> float:
    return float(version) if version.replace(".", "", 1).isdigit() else 0.0


def _as_other_user(folder: Path) -> list[str]:
    """Return what a command begins with to run as a user to whom PostgreSQL is allowed, who owns the folder then."""
    if os.geteuid() != 0:
        return []
    user = next((user for user in (_user("postgres"), _user("nobody")) if user is not None), None)
    setpriv = shutil.which("setpriv")
    if user is None or setpriv is None:
        raise SetupError(
            "PostgreSQL does not run as root, and neither a user postgres nor setpriv is there: be no root"
        )
    os.chown(folder, user.pw_uid, user.pw_gid)
    # Another user's process would outlive ours, since the kernel forgets the signal that spawn() asks for.
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig=KILL", "--"]


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
