"""Debezium on a real Kafka Connect on this machine, only from pip packages; produces the changes of a PostgreSQL."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from tablehouse.errors import SetupError
from tablehouse.testing import processes
from tablehouse.testing.jars import connect_class_path, java
from tablehouse.testing.postgres import USER, Postgres

_READY_DEADLINE = 120.0  # seconds; 6 to 12 are usual
_STOP_GRACE = 10.0
_POLL = 0.1
_RUNNING = "RUNNING"

_JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


def postgres_connector(postgres: Postgres, name: str, tables: Sequence[str], **settings: object) -> dict[str, str]:
    """Return the properties of a connector that captures these tables (`schema.table`) into topics `name.schema.table`.

    Their events are JSON without schemas, with decimals as strings; `settings` replace or add properties, with _ for
    `.`.
    """
    properties: dict[str, object] = {
        "name": name,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": 1,
        "plugin.name": "pgoutput",
        "publication.name": f"{name}_changes",
        "publication.autocreate.mode": "filtered",
        "slot.name": f"{name}_changes",
        "database.hostname": "127.0.0.1",
        "database.port": postgres.port,
        "database.user": USER,
        "database.password": "",
        "database.dbname": USER,
        "topic.prefix": name,
        "table.include.list": ",".join(tables),
        "decimal.handling.mode": "string",
        # Poll for changes more often than the default of 500 ms, so that they are visible at once.
        "poll.interval.ms": 50,
        "topic.creation.default.replication.factor": -1,
        "topic.creation.default.partitions": -1,
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
    }
    properties |= {setting.replace("_", "."): value for setting, value in settings.items()}
    return {property_: str(value) for property_, value in properties.items()}


class Debezium(processes.Service):
    """A standalone worker of Kafka Connect on 127.0.0.1 that runs some connectors; its files are in `folder`.

    If restarted with the same folder, it continues where it stopped. On Linux it ends with this process, even if that
    is killed.
    """

    def __init__(self, folder: Path, bootstrap: str, connectors: Sequence[Mapping[str, str]]) -> None:
        self._folder = folder.absolute()
        self._bootstrap = bootstrap
        self._connectors = connectors
        self._url = f"http://127.0.0.1:{processes.free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where it logs."""
        return self._folder / "connect.log"

    def start(self) -> None:
        """Start it and return once each connector and its task run.

        Raises SetupError, with nothing left running: missing packages or downloads, or a connector that failed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        worker = {
            "bootstrap.servers": self._bootstrap,
            "listeners": self._url,
            "plugin.discovery": "only_scan",
            "offset.storage.file.filename": self._folder / "offsets",
            "offset.flush.interval.ms": 1000,
            "topic.creation.enable": "true",
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        }
        files = [self._write("worker", worker), *(self._write(one["name"], one) for one in self._connectors)]
        program = [java(), *_JVM, "-cp", connect_class_path(), "org.apache.kafka.connect.cli.ConnectStandalone"]
        self._process = processes.spawn([*program, *map(str, files)], log=self.log)
        try:
            self._wait_running(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it, cleanly within a few seconds or else with SIGKILL."""
        if self._process is not None:
            processes.end([self._process], grace=_STOP_GRACE)

    def kill(self) -> None:
        """End it with SIGKILL; after a restart, it sends some events again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _write(self, name: str, properties: Mapping[str, object]) -> Path:
        path = self._folder / f"{name}.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), "utf-8")
        return path

    def _wait_running(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_DEADLINE
        for connector in self._connectors:
            while not self._runs(connector["name"]):
                if process.poll() is not None:
                    raise SetupError(self._with_log("Kafka Connect ended while it was starting"))
                if time.monotonic() > deadline:
                    raise SetupError(
                        self._with_log(f"connector {connector['name']} did not run after {_READY_DEADLINE:.0f} s")
                    )
                time.sleep(_POLL)

    def _runs(self, name: str) -> bool:
        """Return whether a connector and its task run; raises SetupError if the task has failed."""
        try:
            answer = httpx.get(f"{self._url}/connectors/{name}/status", timeout=5, trust_env=False)
        except httpx.TransportError:
            return False
        if answer.status_code != HTTPStatus.OK:
            return False
        status: dict[str, Any] = json.loads(answer.content)
        for task in status["tasks"]:
            if task["state"] == "FAILED":
                raise SetupError(self._with_log(f"connector {name} has failed: {task.get('trace', '')[:2000]}"))
        return bool(status["tasks"]) and all(task["state"] == _RUNNING for task in status["tasks"])

    def _with_log(self, message: str) -> str:
        return f"{message}; the last lines of {self.log}:\n{processes.last_lines(self.log)}"
