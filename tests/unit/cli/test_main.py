import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from tablehouse.cli import worker as worker_command
from tablehouse.cli.main import main
from tablehouse.config.settings import SETTINGS, Settings
from tests.support.limits import few_open_files

GOOD = "tables:\n  - {name: planes, source: {topic: planes, key: string, value: json}}\n"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TABLEHOUSE_"):
            monkeypatch.delenv(name)


def test_check_says_how_many_tables_a_good_file_has(tmp_path: Path) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(GOOD, encoding="utf-8")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert (result.exit_code, result.stdout) == (0, f"{path}: 1 table, ok\n")


def test_check_prints_every_problem_on_stderr_and_exits_with_2(tmp_path: Path) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(GOOD + "  - {name: B, ttl: 1d}\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        [f"{path}:3", "tables[1].ttl"],
        [f"{path}:3", "tables[1].source"],
        [f"{path}:3", "tables[1].name"],
    ]


def test_the_help_of_worker_documents_every_setting() -> None:
    result = CliRunner().invoke(main, ["worker", "--help"], terminal_width=500)
    assert result.exit_code == 0
    for setting in SETTINGS:
        default = "required" if setting.default is None else f"default: {setting.default}"
        assert setting.flag in result.stdout
        assert f"{setting.description} [{setting.variable}; {default}]" in result.stdout
    assert "TABLEHOUSE_CONFIG" in result.stdout


def test_worker_hands_its_settings_over_and_exits_with_the_workers_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed: list[Settings] = []

    def run(settings: Settings) -> int:
        handed.append(settings)
        return 7

    monkeypatch.setattr(worker_command, "run_worker", run)
    monkeypatch.setenv("TABLEHOUSE_TABLES", "tables.yaml")
    result = CliRunner().invoke(main, ["worker", "--bootstrap-servers", "kafka:9092", "--http-port", "80"])
    assert result.exit_code == 7
    assert (handed[0].bootstrap_servers, handed[0].http_port) == ("kafka:9092", 80)
    assert handed[0].tables == Path("tables.yaml")


def test_worker_without_its_settings_says_so_without_a_traceback_and_exits_with_2() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tablehouse", "worker", "--group", "a b"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert [line.split(" ")[1] for line in result.stderr.splitlines()] == [
        "bootstrap_servers",
        "tables",
        "--group:",
    ]


@contextmanager
def _starting_worker(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker that waits for its tables while the context lasts."""
    tables = folder / "tables.yaml"
    os.mkfifo(tables)
    worker = subprocess.Popen(
        [sys.executable, "-m", "tablehouse", "worker", "--bootstrap-servers", "localhost:1", "--tables", str(tables)]
    )
    try:
        # Opened once the worker has opened it to read, which goes on until it is closed.
        with tables.open("w"):
            yield worker
    finally:
        worker.kill()
        worker.wait(10)


def test_a_worker_that_is_told_to_stop_before_it_has_started_ends_at_once(tmp_path: Path) -> None:
    with _starting_worker(tmp_path) as worker:
        worker.terminate()
        assert worker.wait(10) == 0


def test_a_worker_opens_as_many_files_as_it_may(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with few_open_files(256), _starting_worker(tmp_path) as worker:
        assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE) == (most, most)


def test_version_prints_the_installed_version() -> None:
    result = CliRunner().invoke(main, ["--version"], prog_name="tablehouse")
    assert (result.exit_code, result.stdout) == (0, "tablehouse 0.1.0\n")
