"""Files out of packages of Debian's, without installing these."""

import subprocess
import tempfile
from pathlib import Path

from tablehouse.testing.jars import cache_folder
from tests.support.helm import fetched_once, put_in_place

_SECONDS = 120  # that a download may take


def file_of(package: str, pattern: str) -> Path:
    """Return the one file of a package that matches a pattern of paths, fetched once into the cache folder.

    Raises RuntimeError with what apt said.
    """
    file = cache_folder() / package / Path(pattern).name
    with fetched_once(file):
        if not file.exists():
            _fetch(package, pattern, file)
    return file


def _fetch(package: str, pattern: str, file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run(["apt-get", "download", "--quiet", package], folder)
            (archive,) = Path(folder).glob("*.deb")
            _run(["dpkg-deb", "--extract", str(archive), folder], folder)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or error
            raise RuntimeError(
                f"Debian's package {package} cannot be had. Run `apt-get update` and try again: {said}"
            ) from error
        (found,) = Path(folder).glob(pattern)
        put_in_place(file, found.read_bytes())


def _run(command: list[str], folder: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_SECONDS)
