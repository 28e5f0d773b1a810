import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tablehouse.errors import SetupError
from tablehouse.testing import postgres
from tablehouse.testing.processes import free_port, port_is_free
from tests.support.postgres import require_postgres

_REPOSITORY = Path(__file__).parents[2]
_DEADLINE = 150.0  # seconds


@contextmanager
def _demo(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    require_postgres()
    ports = {
        "DEMO_HTTP_PORT": _two_free_ports(),
        "DEMO_INTERNAL_PORT": _two_free_ports(),
        "DEMO_BROKER_PORT": free_port(),
        "DEMO_POSTGRES_PORT": free_port(),
    }
    given = {name: str(port) for name, port in ports.items()}
    # As a shell starts what a script has run with &.
    ignoring = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    with subprocess.Popen(
        [*ignoring, sys.executable, "-m", "tablehouse.demo.cdc", *arguments],
        cwd=folder,
        env=os.environ | given | {"PYTHONPATH": str(_REPOSITORY), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        try:
            yield demo, ports
        finally:
            demo.kill()


def _two_free_ports() -> int:
    return next(port for port in iter(free_port, None) if port_is_free(port + 1))


def test_every_change_that_the_demo_prints_shows_in_the_request_beside_it(tmp_path: Path) -> None:
    with _demo(tmp_path, "--once") as (demo, ports):
        said, _ = demo.communicate(timeout=_DEADLINE)
        assert demo.returncode == 0, said
        assert said.count("ok (") == said.count('-U postgres -c "') == said.count("curl -i") == 4, said
        assert all(port_is_free(port) for port in ports.values())


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with _demo(tmp_path) as (demo, ports):
        assert demo.stdout is not None
        said = ""
        for line in demo.stdout:
            said += line
            if "Ctrl-C stops everything" in line:
                break
        else:
            raise AssertionError(said)
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=_DEADLINE)
        assert demo.returncode == 0, said + rest
        for name, port in ports.items():
            assert port_is_free(port), name


def test_without_postgresql_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres, "_DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SetupError, match="apt-get install postgresql"):
        postgres.program("initdb")
