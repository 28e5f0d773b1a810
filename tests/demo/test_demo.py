import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tablehouse.testing.processes import free_port, port_is_free

_REPOSITORY = Path(__file__).parents[2]
_DEADLINE = 240.0
_FLIGHTS = "3000"


def _two_free_ports() -> int:
    while True:
        port = free_port()
        if port_is_free(port + 1):
            return port


@contextmanager
def _demo(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    ports = {
        "DEMO_HTTP_PORT": str(_two_free_ports()),
        "DEMO_INTERNAL_PORT": str(_two_free_ports()),
        "DEMO_BROKER_PORT": str(free_port()),
    }
    inherited = {name: value for name, value in os.environ.items() if name != "BOOTSTRAP"}
    environment = inherited | ports | {"PYTHONPATH": str(_REPOSITORY), "PYTHONUNBUFFERED": "1"}
    # As a shell starts what a script has run with &.
    ignoring = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    with subprocess.Popen(
        [*ignoring, sys.executable, "-m", "tablehouse.demo", "--flights", _FLIGHTS, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        try:
            yield demo, ports
        finally:
            demo.kill()


def test_every_request_that_the_demo_prints_gets_the_answer_it_promises(tmp_path: Path) -> None:
    with _demo(tmp_path, "--once") as (demo, _):
        said, _ = demo.communicate(timeout=_DEADLINE)
        assert demo.returncode == 0, said
        assert "it answers itself" in said
        assert "forwards the request" in said
        assert "ok (404): curl -i" in said
        assert "ok (400): curl -i" in said


def test_a_killed_worker_is_reported_the_other_keeps_answering_and_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with _demo(tmp_path) as (demo, ports):
        assert demo.stdout is not None
        said = ""
        for line in demo.stdout:
            said += line
            if line.startswith("To see a worker fail: kill -9 "):
                os.kill(int(line.split()[-1]), signal.SIGKILL)
            if "was ended by SIGKILL" in line:
                break
        else:
            raise AssertionError(said)
        first = f"http://127.0.0.1:{ports['DEMO_HTTP_PORT']}"
        _wait_until_every_airline_is_served(first)
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=_DEADLINE)
        assert demo.returncode == 0, said + rest
        for name, port in ports.items():
            assert port_is_free(int(port)), name


def _wait_until_every_airline_is_served(url: str) -> None:
    """Ask until all answers are 200; a 404 for one of these keys is a lost row at any time."""
    airlines = ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"]
    deadline = time.monotonic() + _DEADLINE
    with httpx.Client(base_url=url, trust_env=False) as client:
        while True:
            codes = {key: client.get(f"/tables/airlines/{key}").status_code for key in airlines}
            assert set(codes.values()) <= {200, 503}, codes
            if set(codes.values()) == {200}:
                return
            assert time.monotonic() < deadline, codes
