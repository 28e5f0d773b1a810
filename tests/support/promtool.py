"""promtool, which checks rules of Prometheus: that of the machine, or else out of a package of Debian's."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from app.demo.kafka_jars import cache_folder
from tests.support.helm import fetched_once, put_in_place

_SECONDS = 120  # that a download or a check may take


def promtool(*arguments: str, folder: Path) -> None:
    """Run it in a folder; fails with what it printed when it finds a fault."""
    ended = subprocess.run(
        [_program(), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@functools.cache
def _program() -> str:
    if installed := shutil.which("promtool"):
        return installed
    program = cache_folder() / "promtool" / "promtool"
    with fetched_once(program):
        if not program.exists():
            _fetch(program)
    return str(program)


def _fetch(program: Path) -> None:
    # The package itself is not installed: it would start a Prometheus.
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run(["apt-get", "download", "--quiet", "prometheus"], folder)
            (package,) = Path(folder).glob("*.deb")
            _run(["dpkg-deb", "--extract", str(package), folder], folder)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or error
            raise RuntimeError(
                "promtool is neither on the PATH nor to be had from Debian's package prometheus. Install Prometheus, "
                f"or run `apt-get update` and try again: {said}"
            ) from error
        put_in_place(program, (Path(folder) / "usr/bin/promtool").read_bytes())


def _run(command: list[str], folder: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_SECONDS)
