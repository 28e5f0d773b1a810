"""promtool, which checks rules of Prometheus: that of the machine, or else out of a package of Debian's."""

import shutil
import subprocess
from pathlib import Path

from tests.support.debian import file_of

_SECONDS = 120  # that a check may take


def promtool(*arguments: str, folder: Path) -> None:
    """Run it in a folder; fails with what it printed when it finds a fault."""
    # The package itself is not installed: it would start a Prometheus.
    program = shutil.which("promtool") or file_of("prometheus", "usr/bin/promtool")
    ended = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
