"""A node of the cluster: a network and mounts of its own, and in them containerd, the kubelet and the rest."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from tablehouse.testing import processes
from tests.kubernetes import addresses
from tests.kubernetes.binaries import program
from tests.kubernetes.image import PAUSE
from tests.support.polling import wait_until

# What programs find at fixed paths is the node's own. The kubelet sets some values of the kernel, which are the whole
# machine's: it gets files in their place.
_MOUNTS = """\
set -e
mount -t tmpfs tmpfs /run
mount --bind "$0/lib" /var/lib
mount --bind "$0/log" /var/log
for setting in vm/overcommit_memory:1 vm/panic_on_oom:0 kernel/panic:10 kernel/panic_on_oops:1 \
  kernel/keys/root_maxkeys:1000000 kernel/keys/root_maxbytes:25000000
do
  file="$0/$(basename "${setting%:*}")"
  echo "${setting#*:}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%:*}"
done
touch "$0/mounted"
exec sleep infinity
"""

_NETWORK = """\
set -e
ip link set lo up
ip link set eth0 up
ip address add "$1/24" dev eth0
ip route add default via "$2"
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link add cni0 type bridge
ip link set cni0 up
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
"""

# restrict_oom_score_adj: a machine that is a container itself may not lower the score of its processes.
_CONTAINERD = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


class Node:
    """One of them; its processes end with this one, and what it mounted with them."""

    def __init__(self, number: int, folder: Path, kubeconfig: Path, cgroup: str) -> None:
        """Take its number, counted from 1, and the path of its cgroup below those of every controller."""
        self.name = f"node-{number}"
        self.number = number
        self.address = addresses.of_node(number)
        self._folder = folder
        self._kubeconfig = kubeconfig
        self._cgroup = cgroup
        self._running: list[subprocess.Popen[bytes]] = []
        self._holder = 0
        self._link = f"node{number}"

    def enter(self, *command: str) -> list[str]:
        """Return the command that runs another one on this node."""
        return [_path_of("nsenter"), f"--target={self._holder}", "--net", "--mount", "--", *command]

    def run(self, *command: str) -> str:
        """Run a command on this node and return what it prints."""
        return subprocess.run(self.enter(*command), check=True, capture_output=True, text=True, timeout=300).stdout

    def start(self) -> None:
        """Make its namespaces and start containerd."""
        for name in ("lib", "log", "cni", "tools"):
            (self._folder / name).mkdir(parents=True)
        holder = [_path_of("unshare"), "--net", "--mount", "sh", "-c", _MOUNTS, str(self._folder)]
        self._holder = self._spawn("holder", holder).pid
        self._connect()
        for tool in (
            "iptables",
            "iptables-save",
            "iptables-restore",
            "ip6tables",
            "ip6tables-save",
            "ip6tables-restore",
        ):
            (self._folder / "tools" / tool).symlink_to(_path_of("xtables-legacy-multi"))
        (self._folder / "cni" / "10-pods.conflist").write_text(json.dumps(_pod_network(self.number)), "utf-8")
        configuration = self._folder / "containerd.toml"
        configuration.write_text(_CONTAINERD.format(pause=PAUSE, folder=self._folder), "utf-8")
        self._spawn("containerd", self.enter(_path_of("containerd"), "--config", str(configuration)))

    def load(self, archive: Path) -> None:
        """Give it an image."""
        self.run("ctr", "--namespace", "k8s.io", "images", "import", str(archive))

    def join(self) -> None:
        """Start what makes it a node of the cluster."""
        place = [f"--kubeconfig={self._kubeconfig}", f"--hostname-override={self.name}", f"--node-ip={self.address}"]
        for name, configuration, flags in (("kubelet", self._kubelet(), place), ("kube-proxy", self._proxy(), [])):
            file = self._folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump(configuration), "utf-8")
            self._spawn(name, self.enter(program("kubernetes"), name, f"--config={file}", *flags))

    def enforce_policies(self) -> None:
        """Start what enforces NetworkPolicies, once the node has joined."""
        flags = [f"--kubeconfig={self._kubeconfig}", f"--service-cluster-ip-range={addresses.SERVICES}"]
        command = [program("network-policy"), *flags, f"--hostname-override={self.name}"]
        self._spawn("network-policy", self.enter(*command))

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """Pull the plug of its network while the context lasts: nothing on it is told, and nothing outside of it."""
        subprocess.run(["ip", "link", "set", self._link, "down"], check=True)
        try:
            yield
        finally:
            subprocess.run(["ip", "link", "set", self._link, "up"], check=True)

    def stop(self) -> None:
        """End its own processes; containers go on until the namespace of processes ends."""
        processes.end(reversed(self._running), grace=10)

    def _connect(self) -> None:
        wait_until((self._folder / "mounted").exists, f"the mounts of {self.name} are made")
        for command in (
            f"ip link add {self._link} type veth peer name eth0 netns {self._holder}",
            f"ip link set {self._link} master nodes up",
        ):
            subprocess.run(command.split(), check=True)
        self.run("sh", "-c", _NETWORK, "network", self.address, addresses.CONTROL_PLANE)
        pods = addresses.pods_of_node(self.number)
        subprocess.run(["ip", "route", "add", pods, "via", self.address], check=True)

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [addresses.CONTROL_PLANE],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            # The machine's disk is not the test's.
            "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100,
        }

    def _proxy(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._kubeconfig)},
            "clusterCIDR": addresses.PODS,
            "hostnameOverride": self.name,
            "mode": "iptables",
            "conntrack": {"maxPerCore": 0},  # a network namespace of its own may not set it
        }

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        tools = {"PATH": f"{self._folder / 'tools'}:{os.environ['PATH']}"}
        process = processes.spawn(command, log=self._folder / f"{name}.log", env={**os.environ, **tools})
        self._running.append(process)
        return process


def _pod_network(number: int) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": addresses.pods_of_node(number)}]]},
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _path_of(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is not there"
    return found
