"""docs/tutorial.md from its first line to its last: its files written, its commands run, their output compared.

Blocks that begin with `# name` are files. A block that ends with `tablehouse worker` is a terminal of its own. A line
`# text` after a command is how its output begins, and for curl the status and how the body begins.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tablehouse.testing import processes
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import unique

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DEADLINE = 180.0  # seconds, for what takes a moment to become so
_WHEEL = re.compile(r"`python3 (-m pip wheel .+?) \.`")


class Step(NamedTuple):
    """A command of the page, and how its output begins."""

    command: str
    output: str | None


def _steps(block: str) -> list[Step]:
    steps: list[Step] = []
    for line in block.splitlines():
        if line.startswith("# "):
            steps[-1] = steps[-1]._replace(output=line.removeprefix("# "))
        else:
            steps.append(Step(line, None))
    return steps


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as the page and the README say, with the build tools that are here, and return its folder."""
    [command] = _WHEEL.findall(_PAGE.read_text("utf-8"))
    assert f"\npython3 {command} .\n" in (_ROOT / "README.md").read_text("utf-8")
    folder = tmp_path_factory.mktemp("repository") / "dist"
    arguments = shlex.split(command.replace("--wheel-dir dist", f"--wheel-dir {folder}"))
    made = subprocess.run(
        [sys.executable, *arguments, "--no-build-isolation", "--no-index", str(_ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return folder


class Reader:
    """Does what the page says, in a folder of its own, on free ports."""

    def __init__(self, folder: Path, substitutions: dict[str, str]) -> None:
        self._folder = folder
        self._substitutions = substitutions
        self._workers: list[subprocess.Popen[bytes]] = []
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("TABLEHOUSE_", "PIP_"))}
        # The dependencies are those of this environment, so that nothing is downloaded.
        self._environment = kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
        }

    def read(self, page: str) -> None:
        """Go through the page."""
        for language, block in _BLOCK.findall(self._here(page)):
            first, rest = block.split("\n", 1)
            if language == "python":
                (self._folder / first.removeprefix("# ")).write_text(rest, "utf-8")
            elif (last := block.splitlines()[-1]).startswith("tablehouse worker "):
                self._start_worker(block.removesuffix(f"{last}\n"), last)
            else:
                for step in _steps(block):
                    self._take(step)

    def close(self) -> None:
        """Stop the workers."""
        processes.end(self._workers, grace=30)

    def _here(self, page: str) -> str:
        for there, here in self._substitutions.items():
            assert there in page
            page = page.replace(there, here)
        return page

    def _shell(self, command: str) -> list[str]:
        # Each command has a shell of its own, in which the environment is activated again once it exists. Dependencies
        # are added once the wheel is installed: pip would take what is on the path for installed.
        environment, before = self._folder / ".venv" / "bin", ""
        if (environment / "activate").exists():
            before = ". .venv/bin/activate; "
        if (environment / "tablehouse").exists():
            before += f"export PYTHONPATH={shlex.quote(sysconfig.get_path('purelib'))}; "
        return ["/bin/sh", "-c", before + command]

    def _start_worker(self, before: str, command: str) -> None:
        with (self._folder / f"worker-{len(self._workers) + 1}.log").open("wb") as log:
            self._workers.append(
                subprocess.Popen(
                    self._shell(f"{before}exec {command}"),
                    cwd=self._folder,
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                )
            )

    def _take(self, step: Step) -> None:
        asks = step.command.startswith("curl ")
        command = f"{step.command} --max-time 20 --write-out '\n%{{http_code}}'" if asks else step.command
        deadline = time.monotonic() + _DEADLINE
        while True:
            made = subprocess.run(
                self._shell(command),
                cwd=self._folder,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
            )
            said = made.stdout
            if asks:
                body, _, status = made.stdout.rpartition("\n")
                said = f"{status} {body}"
            if made.returncode == 0 and said.startswith(step.output or ""):
                return
            # A worker that has just started is asked until it is ready; nothing else is tried twice.
            patient = asks and "/readyz" in command and time.monotonic() < deadline
            assert patient, f"{step.command}\n{said[:2000]}\n{made.stderr}\n{self._logs()}"
            time.sleep(0.1)

    def _logs(self) -> str:
        return "\n".join(processes.last_lines(log) for log in sorted(self._folder.glob("worker-*.log")))


@pytest.fixture
def reader(kafka: EmbeddedKafka, wheels: Path, tmp_path: Path) -> Iterator[Reader]:
    """Make a reader with this machine's Kafka, wheel and ports; its workers end with the test."""
    free = {port: processes.free_port() for port in (8080, 8081, 9080, 9081)}
    flags = {f"port {port}": f"port {here}" for port, here in free.items()}
    addresses = {f":{port}": f":{free[port]}" for port in (8080, 8081)}
    substitutions = {
        "localhost:9092": kafka.bootstrap_servers,
        "/path/to/the/repository/dist": str(wheels),
        "customers": unique("customers"),
        # The group has a default, which other tests may use too.
        "tablehouse worker ": f"tablehouse worker --group {unique('tutorial')} ",
    }
    reader = Reader(tmp_path, substitutions | addresses | flags)
    yield reader
    reader.close()


def test_every_command_of_the_tutorial_gives_what_it_says(reader: Reader, tmp_path: Path) -> None:
    reader.read(_PAGE.read_text("utf-8"))
    # It was the wheel that did all this.
    assert list(tmp_path.glob(".venv/lib/python*/site-packages/tablehouse/cli/main.py"))
