"""The chart's release in the cluster, and what people do with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.helm.generate import CHART
from tests.kubernetes.cluster import NAMESPACE, Cluster, KubectlError
from tests.support.helm import HELM_4, RELEASE, Helm
from tests.support.polling import wait_until

_SECONDS = 600.0  # that a command of Helm's, or a roll, may take on a loaded machine


class Release:
    """The release, with the values that it was given last."""

    def __init__(self, cluster: Cluster, home: Path, values: Mapping[str, Any]) -> None:
        self._cluster = cluster
        self._home = home
        self._helm = HELM_4
        self.values: Mapping[str, Any] = values

    def install(self, helm: Helm = HELM_4) -> None:
        """Install it, and use this Helm from now on."""
        self._helm = helm
        self._run("install", RELEASE, str(CHART), "--values", self._file(self.values))

    def upgrade(self, *flags: str, **values: Any) -> None:
        """Upgrade it with values that are changed, and stay so. Raises HelmError."""
        changed = {**self.values, **values}
        self._run("upgrade", RELEASE, str(CHART), "--values", self._file(changed), *flags)
        self.values = changed

    def rollback(self) -> None:
        """Go back to the revision before the last one."""
        self._run("rollback", RELEASE)

    def test(self, *flags: str) -> str:
        """Run its test and return what that printed. Raises HelmError."""
        return self._run("test", RELEASE, *flags)

    def uninstall(self) -> None:
        """Remove it; volumes stay."""
        self._run("uninstall", RELEASE, "--wait")

    def scale(self, replicas: int) -> None:
        """Have another number of workers, by kubectl."""
        self._cluster.kubectl("scale", f"statefulset/{RELEASE}", f"--replicas={replicas}")

    def replicas(self) -> int:
        """Return how many workers the StatefulSet wants."""
        return int(self._cluster.get("statefulset", RELEASE)["spec"]["replicas"])

    def ready(self) -> int:
        """Return how many workers are ready."""
        return int(self._cluster.get("statefulset", RELEASE)["status"].get("readyReplicas", 0))

    def pods(self) -> dict[str, str]:
        """Return the workers' pods by name, each with its uid, which a pod that takes its place does not have."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self._workers()}

    def addresses(self) -> dict[str, str]:
        """Return the addresses of the workers' pods."""
        return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in self._workers()}

    def node_of(self, pod: str) -> str:
        """Return the node on which a pod is."""
        return str(self._cluster.get("pod", pod)["spec"]["nodeName"])

    def url(self, table: str) -> str:
        """Return the URL of a table, at the address of the Service."""
        return f"http://{self._cluster.get('service', RELEASE)['spec']['clusterIP']}/tables/{table}"

    def wait_until_rolled(self) -> None:
        """Wait until every pod is of the newest revision and ready, and every copy has caught up."""
        self._cluster.kubectl(
            "rollout", "status", f"statefulset/{RELEASE}", f"--timeout={_SECONDS:.0f}s", seconds=_SECONDS
        )
        self.wait_until_settled()

    def wait_until_settled(self) -> None:
        """Wait until a step is over, as the chart's README says: the pods that should be, and no copy is behind."""
        wait_until(self._has_settled, "every worker is ready and no copy is behind", _SECONDS / 4)

    def _has_settled(self) -> bool:
        workers = self._workers()
        assert len(workers) == self.replicas(), f"{len(workers)} pods"
        for worker in workers:
            pod = worker["metadata"]["name"]
            assert "deletionTimestamp" not in worker["metadata"], f"{pod} is being deleted"
            conditions = {each["type"]: each["status"] for each in worker["status"].get("conditions", [])}
            assert conditions.get("Ready") == "True", f"{pod} is not ready"
            path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/readyz?verbose"
            try:
                said = self._cluster.kubectl("get", "--raw", path)
            except KubectlError as error:
                raise AssertionError(error) from error
            assert '"behind":0' in said.replace(" ", ""), said
        return True

    def _workers(self) -> list[dict[str, Any]]:
        selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=worker"
        return list(self._cluster.get("pods", f"--selector={selector}")["items"])

    def _file(self, values: Mapping[str, Any]) -> str:
        file = self._home / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values)), "utf-8")
        return str(file)

    def _run(self, *arguments: str) -> str:
        place = ["--namespace", NAMESPACE]
        return self._helm.run(
            *arguments, *place, home=self._home, seconds=_SECONDS, kubeconfig=self._cluster.kubeconfig
        )
