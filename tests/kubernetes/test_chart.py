"""The chart on a real Kubernetes, three workers on two nodes; each test goes on from what the one before it left."""

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tablehouse.testing.kafka import EmbeddedKafka, Listener
from tests.kubernetes.cluster import NAMESPACE, Cluster, KubectlError
from tests.kubernetes.conftest import PASSWORD, USER, table
from tests.kubernetes.judge import Judge, Step
from tests.kubernetes.metrics import Metrics
from tests.kubernetes.release import Release
from tests.support.authority import Authority
from tests.support.helm import HELM_3, RELEASE, HelmError
from tests.support.polling import wait_until

pytestmark = pytest.mark.timeout(1800)

# Again for a while, since what a policy allows a new pod is only known once the node has reported its address.
_CONNECT = """\
import socket, sys, time
deadline = time.monotonic() + 10
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
    else:
        break
"""

_OUTAGE_SECONDS = 35  # longer than a session, and than what a probe allows


@contextlib.contextmanager
def judged(judge: Judge, name: str, *, loses_connections: bool = False) -> Iterator[Step]:
    """Judge what readers see meanwhile: every default read gets its row, and no answer is wrong.

    Where a worker loses its connections, their readers get no answer.
    """
    with judge.step(name) as step:
        yield step
    assert step.count("default") > 0, "nothing was read"
    refused = [read for read in step.failures() if not (loses_connections and read in step.unanswered())]
    assert not refused[:5], f"{len(refused)} of {step.count('default')} default reads"
    assert loses_connections or not step.unanswered()[:5], f"{len(step.unanswered())} reads got no answer"
    assert not step.wrong()[:5], f"{len(step.wrong())} wrong answers"


@pytest.mark.brief
def test_the_release_is_installed_and_its_workers_become_ready(release: Release) -> None:
    assert len(release.pods()) == 3


@pytest.mark.brief
def test_the_test_of_the_release_reads_a_row_and_leaves_no_pod(cluster: Cluster, release: Release) -> None:
    assert ":get?key=key-1" in release.test()  # its log, which Helm 4 prints
    assert f"pod/{RELEASE}-read-row" not in cluster.kubectl("get", "pods", "--output=name")


def test_a_test_that_fails_leaves_its_log(cluster: Cluster, release: Release) -> None:
    right = release.values["test"]
    release.upgrade(test={"table": "rows", "key": "no such key"})
    with pytest.raises(HelmError, match=f"{RELEASE}-read-row"):
        release.test()
    assert "404" in cluster.kubectl("logs", f"{RELEASE}-read-row")
    release.upgrade(test=right)
    release.test()
    assert f"pod/{RELEASE}-read-row" not in cluster.kubectl("get", "pods", "--output=name")


@pytest.mark.brief
def test_a_rolling_restart_is_not_seen_by_readers(cluster: Cluster, release: Release, reading: Judge) -> None:
    before = release.pods()
    with judged(reading, "`kubectl rollout restart`"):
        cluster.kubectl("rollout", "restart", f"statefulset/{RELEASE}")
        release.wait_until_rolled()
    assert not set(before.values()) & set(release.pods().values())


def test_an_upgrade_adds_a_table(release: Release, reading: Judge) -> None:
    with judged(reading, "`helm upgrade` with one table more"):
        release.upgrade(tables=[table("rows", "rows"), table("more", "more")])
        release.wait_until_rolled()
    assert release.url("more")


def test_an_upgrade_that_cannot_work_halts_at_its_first_pod_and_is_rolled_back(
    cluster: Cluster, release: Release, reading: Judge
) -> None:
    good, before = release.values, release.pods()
    with judged(reading, "`helm upgrade` with a table that has no topic, and `helm rollback`"):
        release.upgrade(tables=[*good["tables"], table("absent", "absent")])
        last = f"{RELEASE}-2"

        def has_ended() -> bool:
            [container] = cluster.get("pod", last)["status"].get("containerStatuses") or [{}]
            ended = container.get("lastState", {}).get("terminated", {})
            return bool(ended) and container["restartCount"] > 1

        wait_until(has_ended, f"{last} ends again and again", 60)
        now = release.pods()
        assert [now[f"{RELEASE}-{number}"] == before[f"{RELEASE}-{number}"] for number in (0, 1)] == [True, True]
        release.rollback()
        release.values = good
        release.wait_until_rolled()


def test_workers_are_taken_away_and_added(release: Release, reading: Judge) -> None:
    with judged(reading, "three workers to two"):
        release.upgrade(replicaCount=2)
        wait_until(lambda: len(release.pods()) == 2, "one worker is gone", 60)
        release.wait_until_settled()
    with judged(reading, "two workers to three"):
        release.upgrade(replicaCount=3)
        release.wait_until_rolled()


def test_an_autoscaler_owns_the_number_of_workers_and_gives_it_back(
    cluster: Cluster, release: Release, reading: Judge, folder: Path
) -> None:
    own = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "own"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": RELEASE},
            "minReplicas": 3,
            "maxReplicas": 4,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
                }
            ],
        },
    }
    with (
        judged(reading, "an autoscaler adds a worker, and `helm upgrade` keeps it"),
        Metrics(cluster, release, folder) as use,
    ):
        release.upgrade(replicaCount=None)
        assert release.replicas() == 3
        use.millicores = 200
        cluster.apply(own)
        wait_until(lambda: release.replicas() == 4, "the autoscaler adds a worker", 60)
        release.wait_until_rolled()
        release.upgrade(podAnnotations={"upgraded": "while autoscaled"})
        release.wait_until_rolled()
        assert release.replicas() == 4
        cluster.kubectl("delete", "hpa", "own")
    with judged(reading, "`helm upgrade --force-conflicts` with fewer workers"):
        with pytest.raises(HelmError, match="conflict"):
            release.upgrade(replicaCount=3)
        release.upgrade("--force-conflicts", replicaCount=3)
        wait_until(lambda: len(release.pods()) == 3, "one worker is gone", 60)
        release.wait_until_settled()
    release.upgrade(replicaCount=3)  # as any other from now on


def test_a_worker_that_was_scaled_by_kubectl_is_kept_where_the_number_is_left_out(release: Release) -> None:
    release.scale(2)
    wait_until(lambda: len(release.pods()) == 2, "one worker is gone", 60)
    release.upgrade(replicaCount=None)
    assert release.replicas() == 2
    release.upgrade(replicaCount=2)  # what runs, so nothing is in conflict
    release.upgrade("--force-conflicts", replicaCount=3)
    release.wait_until_rolled()


def test_the_autoscaler_of_the_chart_is_turned_on_and_off(release: Release) -> None:
    on = {"enabled": True, "minReplicas": 2, "maxReplicas": 4, "partitions": 6}
    release.upgrade(autoscaling=on)
    release.upgrade(autoscaling=on, podAnnotations={"upgraded": "again"})
    assert release.replicas() == 3
    release.upgrade(autoscaling={"enabled": False})
    release.wait_until_rolled()
    assert release.replicas() == 3


def test_a_deleted_pod_is_replaced(cluster: Cluster, release: Release, reading: Judge) -> None:
    with judged(reading, "a pod is deleted"):
        cluster.kubectl("delete", "pod", f"{RELEASE}-1")
        release.wait_until_settled()


def test_evictions_take_one_worker_at_a_time(cluster: Cluster, release: Release, reading: Judge) -> None:
    def evict(pod: str) -> None:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": NAMESPACE},
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
        cluster.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction))

    with judged(reading, "a pod is evicted"):
        evict(f"{RELEASE}-0")
        with pytest.raises(KubectlError, match="disruption budget"):
            evict(f"{RELEASE}-1")
        release.wait_until_settled()


def test_a_node_that_is_cut_off_takes_only_its_connections_along(
    cluster: Cluster, release: Release, judge: Judge
) -> None:
    """As one that has lost its power, for all that the others see of it."""
    workers = Counter(release.node_of(pod) for pod in release.pods())
    lost, other = sorted(cluster.nodes, key=lambda node: workers[node.name])
    assert workers[lost.name] == 1

    def is_ready() -> bool:
        conditions = cluster.get("node", lost.name)["status"]["conditions"]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    with (
        judge.reading(release.url("rows"), other),
        # Until the cluster calls the node not ready, the Service sends requests there.
        judged(judge, "a node with one of three workers is cut off, and is back", loses_connections=True),
    ):
        with lost.cut_off():
            wait_until(lambda: not is_ready(), "the node is missed", 60)
            wait_until(lambda: release.ready() == workers[other.name], "its worker is no longer ready", 60)
        wait_until(is_ready, "the node is back", 60)
        release.wait_until_settled()


def test_a_node_is_drained_and_its_workers_go_to_the_other(cluster: Cluster, release: Release, reading: Judge) -> None:
    node = release.node_of(f"{RELEASE}-0")
    with judged(reading, "a node is drained"):
        cluster.kubectl("drain", node, "--ignore-daemonsets", "--timeout=600s", seconds=600)
        release.wait_until_settled()
        assert all(release.node_of(pod) != node for pod in release.pods())
    cluster.kubectl("uncordon", node)


def test_a_killed_worker_is_restarted_by_its_node(release: Release, reading: Judge) -> None:
    # Until the node has noticed, the Service sends requests to a worker that is not there.
    with judged(reading, "kill -9 of a worker", loses_connections=True):
        os.kill(_worker_of(f"{RELEASE}-1"), signal.SIGKILL)
        wait_until(lambda: _worker_of(f"{RELEASE}-1"), "the worker runs again", 60)
        release.wait_until_settled()


def test_kafka_that_hangs_restarts_no_worker(
    cluster: Cluster, release: Release, reading: Judge, broker: EmbeddedKafka
) -> None:
    def restarts() -> list[int]:
        pods = [cluster.get("pod", pod) for pod in release.pods()]
        return [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods]

    before = release.pods(), restarts()
    with judged(reading, f"Kafka hangs for {_OUTAGE_SECONDS} s"):
        broker.pause()
        back = time.monotonic() + _OUTAGE_SECONDS
        wait_until(lambda: time.monotonic() > back, "the outage is over", _OUTAGE_SECONDS + 10)
        broker.resume()
        release.wait_until_settled()
    assert (release.pods(), restarts()) == before


def test_the_network_policy_closes_what_it_says(
    cluster: Cluster, release: Release, reading: Judge, connects: Callable[..., bool], listeners: dict[str, Listener]
) -> None:
    address = release.addresses()[f"{RELEASE}-0"]
    assert connects(address, 8080)
    assert connects(address, 9090)
    assert not connects(address, 9080)
    kafka = {"ports": [{"port": listeners["pods"].port}], "to": [{"ipBlock": {"cidr": "10.243.0.1/32"}}]}
    with judged(reading, "`networkPolicy` closes the way out but to Kafka"):
        release.upgrade(networkPolicy={"enabled": True, "extraEgress": [kafka]})
        cluster.kubectl("delete", "pod", f"{RELEASE}-2")
        release.wait_until_settled()
    release.upgrade(networkPolicy={"enabled": True, "allowExternal": False})
    client = {f"{RELEASE}-client": "true"}
    assert connects(address, 8080, client)
    wait_until(lambda: not connects(address, 8080), "pods without the label are kept out", 60)
    release.upgrade(networkPolicy={"enabled": False})
    wait_until(lambda: connects(address, 9080), "the internal port is open", 60)
    release.upgrade(networkPolicy={"enabled": True})
    wait_until(lambda: not connects(address, 9080), "the internal port is closed again", 60)


def test_workers_go_over_to_a_broker_with_tls_and_a_login(
    cluster: Cluster, release: Release, reading: Judge, listeners: dict[str, Listener], authority: Authority
) -> None:
    login = [f"--from-literal=username={USER}", f"--from-literal=password={PASSWORD}"]
    cluster.kubectl("create", "secret", "generic", "kafka-login", *login)
    cluster.kubectl("create", "secret", "generic", "kafka-tls", f"--from-file=ca.crt={authority.ca}")
    before = release.values["kafka"]
    with judged(reading, "`helm upgrade` to a listener with TLS and SCRAM"):
        release.upgrade(
            kafka={
                "bootstrapServers": listeners["secured"].bootstrap_servers,
                "securityProtocol": "SASL_SSL",
                "sasl": {"mechanism": "SCRAM-SHA-512", "existingSecret": "kafka-login"},
                "tls": {"existingSecret": "kafka-tls"},
            }
        )
        release.wait_until_rolled()
    release.upgrade(kafka=before)
    release.wait_until_rolled()


def test_a_stateful_set_that_is_made_again_rolls_no_pod(cluster: Cluster, release: Release, reading: Judge) -> None:
    """The chart's README, "Larger volumes", after a restart of the way that it names."""
    before = release.pods()
    with judged(reading, '"Larger volumes": the StatefulSet is made again'):
        restarted = cluster.kubectl(
            "get",
            "statefulset",
            RELEASE,
            r"--output=jsonpath={.spec.template.metadata.annotations.kubectl\.kubernetes\.io/restartedAt}",
        )
        assert restarted
        cluster.kubectl("delete", "statefulset", RELEASE, "--cascade=orphan")
        annotations = {**release.values.get("podAnnotations", {}), "kubectl.kubernetes.io/restartedAt": restarted}
        release.upgrade(persistence={"size": "2Gi"}, podAnnotations=annotations)
        release.wait_until_rolled()
    assert release.pods() == before


def test_a_release_that_is_installed_again_has_its_volumes(cluster: Cluster, release: Release, judge: Judge) -> None:
    release.uninstall()
    wait_until(lambda: not release.pods(), "every worker is gone", 60)
    assert not cluster.get("pods")["items"]
    assert len(cluster.get("pvc")["items"]) >= 3
    release.install(HELM_3)
    release.wait_until_rolled()
    release.test()
    with judge.reading(release.url("rows")), judged(judge, "Helm 3: installed again, scaled and upgraded"):
        release.scale(2)
        wait_until(lambda: len(release.pods()) == 2, "one worker is gone", 60)
        release.upgrade(podAnnotations={"upgraded": "with Helm 3"})
        assert release.replicas() == 3
        release.wait_until_rolled()
        release.rollback()
        release.wait_until_rolled()


def _worker_of(pod: str) -> int:
    """Return the process id of the worker in a pod, 0 while there is none."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
            if f"HOSTNAME={pod}".encode() in environment and command.endswith(b"tablehouse\0worker\0"):
                return int(process.name)
    return 0


@pytest.fixture
def connects(cluster: Cluster) -> Callable[..., bool]:
    """Return a function that says whether a pod with these labels can connect to an address."""
    image = f"tablehouse:{_tag(cluster)}"

    def ask(address: str, port: int, labels: dict[str, str] | None = None) -> bool:
        name = "connects"
        security = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container = {
            "name": name,
            "image": image,
            "command": ["python", "-c", _CONNECT, address, str(port)],
            "securityContext": security,
        }
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels or {}},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            }
        )

        def phase() -> str | None:
            now = str(cluster.get("pod", name)["status"]["phase"])
            return now if now in {"Succeeded", "Failed"} else None

        try:
            return wait_until(phase, "the pod has tried", 60) == "Succeeded"
        finally:
            cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")

    return ask


def _tag(cluster: Cluster) -> str:
    pod = cluster.get("pod", f"{RELEASE}-0")
    return str(pod["spec"]["containers"][0]["image"]).rpartition(":")[2]
