"""The cluster, Kafka, the release and the judge, which the tests share."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tablehouse.testing.kafka import EmbeddedKafka, Listener
from tests.kubernetes import addresses
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.judge import HEADER, Judge, Step
from tests.kubernetes.release import Release
from tests.kubernetes.rows import Rows
from tests.support.authority import Authority
from tests.support.kafka import create_topic

_FOLDER = os.environ.get("KUBERNETES_TEST_FOLDER")

# `make kubernetes` runs them, in namespaces of their own.
collect_ignore_glob = [] if _FOLDER else ["test_*.py"]

TOPIC = "rows"
PARTITIONS = 6
USER, PASSWORD = "workers", "of-the-login"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"

_steps: list[Step] = []


@pytest.fixture(scope="session")
def folder() -> Path:
    """Return the folder of this run."""
    assert _FOLDER
    return Path(_FOLDER)


@pytest.fixture(scope="session")
def authority(folder: Path) -> Authority:
    """Make the authority of the broker that wants TLS."""
    return Authority(folder / "authority")


@pytest.fixture(scope="session")
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start the cluster."""
    images = [folder / "worker.tar", folder / "pause.tar"]
    with Cluster(folder / "cluster", nodes=2, cgroup=f"/{folder.name}", images=images) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def listeners(authority: Authority) -> dict[str, Listener]:
    """Return the listeners of Kafka's that pods reach: one for everyone, one with TLS and a login."""
    secured = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.keystore(addresses.CONTROL_PLANE)),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "scram-sha-512.sasl.jaas.config": _SCRAM,
    }
    return {
        "pods": Listener("pods", "PLAINTEXT", {}, host=addresses.CONTROL_PLANE),
        "secured": Listener("secured", "SASL_SSL", secured, host=addresses.CONTROL_PLANE),
    }


@pytest.fixture(scope="session")
def broker(cluster: Cluster, folder: Path, listeners: dict[str, Listener]) -> Iterator[EmbeddedKafka]:
    """Start a Kafka beside the control plane, once its address is there."""
    del cluster
    with EmbeddedKafka(folder / "kafka", listeners=list(listeners.values()), scram={USER: PASSWORD}) as broker:
        yield broker


@pytest.fixture(scope="session")
def rows(broker: EmbeddedKafka) -> Iterator[Rows]:
    """Write rows for as long as the tests last."""
    for topic in (TOPIC, "more"):
        asyncio.run(create_topic(broker.bootstrap_servers, topic, PARTITIONS))
    with Rows(broker.bootstrap_servers, TOPIC) as rows:
        yield rows


@pytest.fixture(scope="session")
def release(cluster: Cluster, folder: Path, rows: Rows, listeners: dict[str, Listener]) -> Release:
    """Install the release, with as little beside the defaults as this machine allows."""
    del rows
    home = folder / "helm"
    home.mkdir()
    release = Release(
        cluster,
        home,
        {
            "kafka": {"bootstrapServers": listeners["pods"].bootstrap_servers},
            "tables": [table("rows", TOPIC)],
            "test": {"table": "rows", "key": "key-1"},
            "persistence": {"size": "1Gi"},
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        },
    )
    release.install()
    release.wait_until_rolled()
    return release


@pytest.fixture(scope="session")
def judge(cluster: Cluster, folder: Path) -> Judge:
    """Return the judge of all steps."""
    judge = Judge(cluster, folder)
    judge.steps = _steps
    return judge


@pytest.fixture
def reading(judge: Judge, release: Release) -> Iterator[Judge]:
    """Have readers read while the test lasts."""
    with judge.reading(release.url("rows")):
        yield judge


def table(name: str, topic: str) -> dict[str, object]:
    """Return the definition of a table."""
    return {"name": name, "source": {"topic": topic, "key": "string", "value": "json"}}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what readers saw in each step."""
    if _steps:
        terminalreporter.section("what readers saw")
        terminalreporter.write_line(HEADER)
        for step in _steps:
            terminalreporter.write_line(step.line())
