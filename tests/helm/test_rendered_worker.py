"""A worker, and the test of the release, run as the chart would have Kubernetes run them."""

import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp

from tablehouse.testing import processes
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.helm import HELM_4, only
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until

_ROW = b'{"carrier":"UA","name":"United Air Lines Inc."}'


class _Pod:
    """What Kubernetes would make of the pod of a StatefulSet, on this machine: folders for volumes, and no network."""

    def __init__(self, objects: list[dict[str, Any]], folder: Path) -> None:
        workers = only(objects, "StatefulSet")["spec"]
        spec = workers["template"]["spec"]
        (self.container,) = spec["containers"]
        self._ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self._folders = {mount["mountPath"]: folder / mount["name"] for mount in self.container["volumeMounts"]}
        for path in self._folders.values():
            path.mkdir()
        mounts = {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}
        for volume in spec["volumes"]:
            if config := volume.get("configMap"):
                for name, text in only(objects, "ConfigMap", config["name"])["data"].items():
                    (self._folders[mounts[volume["name"]]] / name).write_text(text, "utf-8")

    def environment(self) -> dict[str, str]:
        """Return the container's variables, made in the order in which Kubernetes makes them."""
        downward = {"status.podIP": "127.0.0.1"}
        made: dict[str, str] = {}
        for variable in self.container["env"]:
            if "valueFrom" in variable:
                value = downward[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            else:
                value = _expanded(variable["value"], made)
            made[variable["name"]] = value
        return made

    def here(self, value: str) -> str:
        """Return a value with the container's paths as they are on this machine."""
        for path, folder in self._folders.items():
            if value == path or value.startswith(path + "/"):
                return str(folder) + value.removeprefix(path)
        return value

    def probe(self, name: str) -> str:
        """Return the URL that a probe asks."""
        get = self.container[name]["httpGet"]
        return f"http://127.0.0.1:{self._ports[get['port']]}{get['path']}"


def _expanded(value: str, made: Mapping[str, str]) -> str:
    # Kubernetes leaves what it does not know as it stands.
    return re.sub(r"\$\((\w+)\)", lambda found: made.get(found[1], found[0]), value)


class _Worker:
    """A process of the pod's container."""

    def __init__(self, pod: _Pod, folder: Path) -> None:
        assert "command" not in pod.container  # the image's entry point is `tablehouse`
        self._log = folder / "worker.log"
        variables = {name: pod.here(value) for name, value in pod.environment().items()}
        self.process = processes.spawn(
            [sys.executable, "-m", "tablehouse", *pod.container["args"]],
            log=self._log,
            env={"PYTHONPATH": str(Path(__file__).parents[2])} | variables,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        processes.end([self.process], grace=0)

    async def answers(self, url: str, status: int = 200) -> None:
        """Wait until a URL answers with a status; fail at once when the process ends."""

        async def answered() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"the worker ended, exit code {self.process.returncode}:\n{processes.last_lines(self._log)}"
                )
            try:
                async with aiohttp.ClientSession() as session, session.get(url) as answer:
                    return answer.status == status
            except aiohttp.ClientError:
                return False

        await until(answered, f"{url} answers with {status}", 60)

    async def ends(self) -> int:
        """Tell it to stop as Kubernetes does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)

        async def exit_code() -> int | None:
            return self.process.poll()

        return await until(exit_code, "the worker ends", 40)


async def test_a_worker_runs_with_exactly_what_the_chart_renders(
    kafka: EmbeddedKafka, home: Path, tmp_path: Path
) -> None:
    topic = unique("airlines")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    await produce(kafka.bootstrap_servers, topic, [(b"UA", _ROW, None)])
    values = _values(kafka.bootstrap_servers, topic)
    ports = values["containerPorts"]
    objects = HELM_4.template({**values, "test": {"table": "airlines", "key": "UA"}}, home)
    pod = _Pod(objects, tmp_path)
    assert pod.environment()["TABLEHOUSE_ADVERTISED_HOST"] == "127.0.0.1"

    with _Worker(pod, tmp_path) as worker:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            await worker.answers(pod.probe(probe))
        assert (tmp_path / "data" / "worker.json").exists()

        _read_row(only(objects, "Pod"), f"http://127.0.0.1:{ports['http']}")

        assert await worker.ends() == 0


async def test_without_kafka_a_pod_has_started_and_lives_and_is_not_ready(home: Path, tmp_path: Path) -> None:
    objects = HELM_4.template(_values(f"127.0.0.1:{processes.free_port()}", "airlines"), home)
    pod = _Pod(objects, tmp_path)
    with _Worker(pod, tmp_path) as worker:
        await worker.answers(pod.probe("startupProbe"))
        await worker.answers(pod.probe("readinessProbe"), 503)
        await worker.answers(pod.probe("livenessProbe"))


def _values(bootstrap_servers: str, topic: str) -> dict[str, Any]:
    return {
        "kafka": {"bootstrapServers": bootstrap_servers},
        "tables": [{"name": "airlines", "source": {"topic": topic, "key": "string", "value": "json"}}],
        "containerPorts": {name: processes.free_port() for name in ("http", "internal", "probe")},
        "settings": {
            "group": unique("chart"),
            "http_host": "127.0.0.1",
            "memory_budget": "64MiB",
            "shutdown_timeout": "25s",
        },
    }


def _read_row(test: dict[str, Any], workers: str) -> None:
    """Run the container of `helm test`, with the workers' address here in place of that in the cluster."""
    (container,) = test["spec"]["containers"]
    python, *arguments = container["command"]
    assert python == "python"
    assert arguments[2] == "http://tablehouse.tables.svc.cluster.local:80"
    arguments[2] = workers

    found = _run(arguments)
    assert found.returncode == 0, found.stderr
    assert _ROW.decode() in found.stdout

    arguments[-1] = "no such airline"
    missed = _run(arguments)
    assert missed.returncode != 0
    assert "404" in missed.stderr
    assert "key_not_found" in missed.stderr


def _run(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=150, env={}
    )
