"""deploy/compose without a container runtime: what its services get is held against the image and the settings."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tablehouse.catalog.load import load_catalog
from tablehouse.config.load import load_settings
from tablehouse.config.settings import PREFIX, Settings
from tablehouse.testing.jars import KAFKA_VERSION
from tests.support.dockerfile import all_of, environment_of, stages

_FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
_FILE = yaml.safe_load((_FOLDER / "compose.yaml").read_text("utf-8"))
_SERVICES: dict[str, dict[str, Any]] = _FILE["services"]
_WORKERS = [name for name in _SERVICES if name.startswith("worker-")]
_IMAGE = stages()[-1]


def _listeners(variable: str) -> dict[str, tuple[str, int]]:
    """Return host and port of each listener by its name."""
    found = {}
    for listener in _SERVICES["kafka"]["environment"][variable].split(","):
        name, address = listener.split("://")
        host, port = address.rsplit(":", 1)
        found[name] = host, int(port)
    return found


def _published(service: str) -> dict[int, int]:
    """Return the ports of a service on the host, by those in the container; all are on loopback."""
    ports = {}
    for mapping in _SERVICES[service]["ports"]:
        address, host, container = mapping.split(":")
        assert address == "127.0.0.1"
        ports[int(container)] = int(host)
    return ports


def _mounts(service: str) -> dict[str, str]:
    """Return what is mounted in a service, by where."""
    return {mount.split(":")[1]: mount.split(":")[0] for mount in _SERVICES[service]["volumes"]}


@pytest.fixture
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return what the loader makes of a worker's environment in its container."""
    for name, text in (environment_of(_IMAGE) | _SERVICES[request.param]["environment"]).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, text)
    return load_settings({})


@contextmanager
def _answering(status: int) -> Iterator[int]:
    """Answer every request of 127.0.0.1 with a status, and give the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_there_are_two_workers_and_a_kafka_of_the_version_that_tests_run_on() -> None:
    assert _WORKERS == ["worker-1", "worker-2"]
    assert {_SERVICES[name]["image"] for name in ("kafka", "topics")} == {f"apache/kafka:{KAFKA_VERSION}"}


@pytest.mark.parametrize("worker", _WORKERS)
def test_a_worker_is_the_image_with_its_own_command(worker: str) -> None:
    service = _SERVICES[worker]
    assert (_FOLDER / service["build"]["context"] / "Dockerfile").resolve() == Path(__file__).parents[2] / "Dockerfile"
    assert not {"command", "entrypoint", "user"} & set(service)
    (entrypoint,), (command,) = all_of(_IMAGE, "ENTRYPOINT"), all_of(_IMAGE, "CMD")
    assert (entrypoint, command) == ('["tablehouse"]', '["worker"]')


@pytest.mark.parametrize(("settings", "worker"), [(name, name) for name in _WORKERS], indirect=["settings"])
def test_the_settings_are_accepted_and_agree_with_image_and_services(settings: Settings, worker: str) -> None:
    exposed = {int(port) for port in all_of(_IMAGE, "EXPOSE")[0].split()}
    assert exposed == {settings.http_port, settings.internal_port}
    # The internal listener is for the other worker alone.
    assert list(_published(worker)) == [settings.http_port]
    assert settings.advertised_url == f"http://{worker}:{settings.internal_port}"
    host, port = settings.bootstrap_servers.split(":")
    assert (host, int(port)) == _listeners("KAFKA_ADVERTISED_LISTENERS")["CONTAINERS"]
    grace = _SERVICES[worker]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > settings.shutdown_timeout


@pytest.mark.parametrize(("settings", "worker"), [(name, name) for name in _WORKERS], indirect=["settings"])
def test_tables_and_data_are_mounted_where_the_settings_look_for_them(settings: Settings, worker: str) -> None:
    mounts = _mounts(worker)
    assert set(mounts) == {str(settings.tables), str(settings.data_dir)}
    catalog = load_catalog(_FOLDER / mounts[str(settings.tables)])
    created = _SERVICES["topics"]["command"].split()
    assert [created[created.index("--topic") + 1]] == list(catalog.topics)
    # A volume of its own, which is the worker's user's as the image has made the folder.
    assert all_of(_IMAGE, "VOLUME") == [str(settings.data_dir)]
    assert mounts[str(settings.data_dir)] == worker
    assert worker in _FILE["volumes"]


def test_the_workers_share_all_settings_but_their_addresses() -> None:
    one, other = (dict(_SERVICES[name]["environment"]) for name in _WORKERS)
    assert one.pop("TABLEHOUSE_ADVERTISED_HOST") != other.pop("TABLEHOUSE_ADVERTISED_HOST")
    assert one == other
    assert _published("worker-1") != _published("worker-2")


@pytest.mark.parametrize("worker", _WORKERS)
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_is_a_program_of_the_image_and_says_what_readyz_does(
    worker: str, status: int, *, healthy: bool
) -> None:
    kind, program, *arguments = _SERVICES[worker]["healthcheck"]["test"]
    # The base image is Python's, and the worker's environment, whose python comes first on the path, is made by it.
    assert (kind, program) == ("CMD", "python")
    assert environment_of(_IMAGE)["PATH"].startswith("/opt/tablehouse/bin:")
    with _answering(status) as port:
        code = [argument.replace(":8080/", f":{port}/") for argument in arguments]
        assert code != arguments
        made = subprocess.run([sys.executable, *code], capture_output=True, check=False)
    assert (made.returncode == 0) == healthy


def test_each_listener_of_kafka_advertises_the_address_at_which_its_clients_reach_it() -> None:
    environment = _SERVICES["kafka"]["environment"]
    listeners, advertised = _listeners("KAFKA_LISTENERS"), _listeners("KAFKA_ADVERTISED_LISTENERS")
    protocols = dict(pair.split(":") for pair in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert set(protocols) == set(listeners) == {*advertised, "CONTROLLER"}
    assert environment["KAFKA_CONTROLLER_LISTENER_NAMES"] == "CONTROLLER"
    host, port = listeners["CONTROLLER"]
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"{environment['KAFKA_NODE_ID']}@{host}:{port}"
    # From the host: the published port of loopback. From a container: the service's name and the port in it.
    assert advertised["HOST"] == ("localhost", _published("kafka")[listeners["HOST"][1]])
    assert advertised["CONTAINERS"] == ("kafka", listeners["CONTAINERS"][1])
    assert listeners["HOST"][0] == listeners["CONTAINERS"][0] == "0.0.0.0"  # noqa: S104
    assert environment["KAFKA_LOG_DIRS"] in _mounts("kafka")


def test_workers_wait_until_their_topic_is_created() -> None:
    for worker in _WORKERS:
        assert _SERVICES[worker]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    command = _SERVICES["topics"]["command"].split()
    assert "--if-not-exists" in command
    host, port = _listeners("KAFKA_ADVERTISED_LISTENERS")["CONTAINERS"]
    assert command[command.index("--bootstrap-server") + 1] == f"{host}:{port}"
