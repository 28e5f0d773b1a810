"""The README's curl lines, run against the demo that the README tells the reader to start."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tablehouse.testing.processes import end, free_port, last_lines, port_is_free

README = Path(__file__).parents[2] / "README.md"
_EXAMPLE = re.compile(r"^(curl .+)\n# (\d{3})(?: (.+))?$", re.MULTILINE)
_DEADLINE = 240.0  # seconds

EXAMPLES = _EXAMPLE.findall(README.read_text())


def _two_ports() -> int:
    """Return the first of two free ports in a row."""
    return next(port for port in iter(free_port, None) if port_is_free(port + 1))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start the demo with a few flights on free ports, and give the first worker's port."""
    folder = tmp_path_factory.mktemp("demo")
    ports = {"DEMO_HTTP_PORT": _two_ports(), "DEMO_INTERNAL_PORT": _two_ports(), "DEMO_BROKER_PORT": free_port()}
    log = folder / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tablehouse.demo", "--flights", "2000"],
            stdout=output,
            stderr=output,
            env=os.environ | {name: str(port) for name, port in ports.items()} | {"PYTHONPATH": str(README.parent)},
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + _DEADLINE
        while "Ctrl-C stops everything" not in log.read_text():
            assert process.poll() is None, last_lines(log)
            assert time.monotonic() < deadline, last_lines(log)
            time.sleep(0.1)
        yield ports["DEMO_HTTP_PORT"]
    finally:
        end([process], grace=60)


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize(("command", "status", "beginning"), EXAMPLES)
def test_an_example_of_the_readme_gives_what_it_says(demo: int, command: str, status: str, beginning: str) -> None:
    here = command.replace(":8081", f":{demo}").replace(":8082", f":{demo + 1}")
    made = subprocess.run(
        [*shlex.split(here), "--max-time", "20", "--write-out", "\n%{http_code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, code = made.stdout.rpartition("\n")
    assert code == status, body
    assert body.startswith(beginning), body
