"""An older version of Tablehouse, built out of this repository's history into an environment of its own."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from tablehouse.testing.jars import cache_folder, only_process

#: The last commit in which the import package was named `app`.
COMMIT = "d4ff48e5d6913de49a843c2ee9aeb9a6eda501ab"

_REPOSITORY = Path(__file__).parents[2]
_SECONDS = 300.0  # for each of the steps


def older_program() -> Path:
    """Return the `tablehouse` of COMMIT, with the dependencies that it locks; built once into the cache folder.

    Skip the test where the history is not there, which continuous integration does not allow.
    """
    folder = cache_folder() / f"tablehouse-{COMMIT[:12]}-{sys.implementation.cache_tag}"
    folder.mkdir(parents=True, exist_ok=True)
    # Environments cannot be moved, so it is built in its place, and a mark says that it is whole.
    environment, built = folder / "environment", folder / "built"
    with only_process(folder / ".lock", f"Tablehouse {COMMIT[:12]}"):
        # The interpreter is a link to the one it was made with.
        if not (built.exists() and (environment / "bin" / "python").exists()):
            built.unlink(missing_ok=True)
            shutil.rmtree(environment, ignore_errors=True)
            with tempfile.TemporaryDirectory() as temporary:
                _check_out(Path(temporary))
                _build(Path(temporary), environment)
            built.touch()
    return environment / "bin" / "tablehouse"


def _check_out(folder: Path) -> None:
    archive = folder / "source.tar"
    try:
        _run("git", "-C", str(_REPOSITORY), "archive", f"--output={archive}", COMMIT)
    except (OSError, RuntimeError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the history of this repository is not here, so no older version can be built: {error}")
    with tarfile.open(archive) as files:
        files.extractall(folder / "source", filter="data")


def _build(folder: Path, environment: Path) -> None:
    source = folder / "source"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    into = ["--python", str(environment / "bin" / "python"), "install", "--no-deps"]
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    _run(*pip, *into, "--require-hashes", "--requirement", str(source / "deploy" / "locks" / "worker.txt"))
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    _run(*pip, *into, "--no-index", *map(str, folder.glob("*.whl")))


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)}: {ended.stdout}{ended.stderr}")
