"""A Kubernetes cluster of some nodes, each with a network of its own, all on this machine."""

import json
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tablehouse.testing import processes
from tests.kubernetes import addresses, cgroups
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.node import Node
from tests.support.helm import HELM_4
from tests.support.polling import wait_until

NAMESPACE = "tables"
_VOLUMES = 8
_SECONDS = 300.0


class KubectlError(Exception):
    """kubectl failed; the message is what it printed."""


class Cluster(processes.Service):
    """A control plane in the network of this process, and nodes, each in a zone of its own."""

    def __init__(self, folder: Path, *, nodes: int, cgroup: str, images: Sequence[Path]) -> None:
        """Take a folder for its files, how many nodes, the cgroup of all pods, and archives of images."""
        self.folder = folder
        self._cgroup = cgroup
        self._images = images
        control_plane = folder / "control-plane"
        control_plane.mkdir(parents=True)
        self._control_plane = ControlPlane(control_plane)
        self.kubeconfig = self._control_plane.kubeconfig
        self.nodes = [
            Node(number, folder / f"node-{number}", self.kubeconfig, f"{cgroup}/node-{number}")
            for number in range(1, nodes + 1)
        ]

    def start(self) -> None:
        """Start it, and return when every node is ready."""
        for command in (
            "ip link set lo up",
            "ip link add nodes type bridge",
            f"ip address add {addresses.CONTROL_PLANE}/24 dev nodes",
            "ip link set nodes up",
        ):
            subprocess.run(command.split(), check=True)
        # What is sent from one node to the pods of another goes through here.
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self._control_plane.start()
        for node in self.nodes:
            node.start()
        wait_until(lambda: self._answers("get", "--raw", "/readyz"), "the API server is ready", 120)
        self._control_plane.start_dns()
        self.apply(*(_node(node) for node in self.nodes), _namespace(), _storage_class(), *self._make_volumes())
        for node in self.nodes:
            cgroups.make(f"{self._cgroup}/{node.name}")
            wait_until(partial(self._has_containerd, node), f"{node.name} has containerd")
            for archive in self._images:
                node.load(archive)
            node.join()
        self.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=300s")
        for node in self.nodes:
            node.enforce_policies()

    def stop(self) -> None:
        """End its processes; what the containers hold ends with the namespaces that it runs in."""
        for node in self.nodes:
            node.stop()
        self._control_plane.stop()

    def kubectl(self, *arguments: str, stdin: str = "", seconds: float = _SECONDS) -> str:
        """Run kubectl in the namespace of the tables and return what it printed. Raises KubectlError when it fails."""
        command = [HELM_4.program("kubectl"), f"--kubeconfig={self.kubeconfig}", f"--namespace={NAMESPACE}", *arguments]
        ended = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=seconds, cwd=self.folder
        )
        if ended.returncode:
            raise KubectlError(f"{' '.join(arguments)}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        self.kubectl("apply", "--filename=-", stdin="\n---\n".join(json.dumps(one) for one in objects))

    def get(self, *arguments: str) -> Any:
        """Return objects, or one object, as the API has them."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a program beside the cluster, whose output is in the folder, under this name."""
        return processes.spawn(command, log=self.folder / f"{name}.log")

    def _answers(self, *arguments: str) -> bool:
        try:
            self.kubectl(*arguments)
        except KubectlError as error:
            raise AssertionError(error) from error
        return True

    def _has_containerd(self, node: Node) -> bool:
        try:
            node.run("ctr", "--namespace", "k8s.io", "version")
        except subprocess.CalledProcessError as error:
            raise AssertionError(error.stderr) from error
        return True

    def _make_volumes(self) -> list[dict[str, Any]]:
        """Return volumes that every node reaches, as it would those of a network; Kubernetes gives them to fsGroup."""
        anywhere = [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}]
        volumes = []
        for number in range(_VOLUMES):
            path = self.folder / "volumes" / str(number)
            path.mkdir(parents=True)
            specification = {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "everywhere",
                "local": {"path": str(path)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": anywhere}},
            }
            name = f"volume-{number}"
            volumes.append(
                {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": specification}
            )
        return volumes


def _node(node: Node) -> dict[str, Any]:
    labels = {"topology.kubernetes.io/zone": f"zone-{node.number}", "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {**labels, "kubernetes.io/hostname": node.name}},
        "spec": {"podCIDR": addresses.pods_of_node(node.number), "podCIDRs": [addresses.pods_of_node(node.number)]},
    }


def _namespace() -> dict[str, Any]:
    # The strictest of Kubernetes's standards for pods, which the chart keeps by default.
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "everywhere", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }
