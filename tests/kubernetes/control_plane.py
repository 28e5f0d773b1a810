"""The control plane of the cluster: etcd, Kubernetes's servers, and CoreDNS."""

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tablehouse.testing import processes
from tests.kubernetes.addresses import API_SERVER, CONTROL_PLANE, PODS, SERVICES
from tests.kubernetes.binaries import program
from tests.support.authority import Authority

if TYPE_CHECKING:
    import subprocess

# Names are cached as long as in a cluster of kubeadm's.
_COREFILE = """\
.:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        ttl 30
    }}
    cache 30
}}
"""


class ControlPlane:
    """Its processes, which end with this one, and the file by which others find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self._running: list[subprocess.Popen[bytes]] = []
        self._authority = Authority(folder / "certificates")

    def start(self) -> None:
        """Start it; what it serves can be asked some seconds later."""
        token = secrets.token_hex(16)
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f"{token},test,test,system:masters\n", "ascii")
        self.kubeconfig.write_text(json.dumps(_kubeconfig(self._authority.ca, token)), "utf-8")
        chain, key = self._authority.certificate(CONTROL_PLANE)
        accounts = self.folder / "accounts.pem"
        accounts.write_bytes(_new_key())
        etcd = ["--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync", "--log-level", "warn"]
        self._spawn("etcd", [program("etcd"), *etcd])
        self._spawn_kubernetes(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--bind-address={CONTROL_PLANE}",
            f"--advertise-address={CONTROL_PLANE}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            f"--tls-cert-file={chain}",
            f"--tls-private-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--kubelet-preferred-address-types=InternalIP",  # the DNS server knows no nodes
            "--enable-aggregator-routing=true",  # no kube-proxy is beside it
        )
        self._spawn_kubernetes(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--cluster-cidr={PODS}",
            f"--service-account-private-key-file={accounts}",
            f"--root-ca-file={self._authority.ca}",
            "--leader-elect=false",
            # The autoscaler looks sooner than it does by default, so that the test sees what it does.
            "--horizontal-pod-autoscaler-sync-period=5s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=5s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        )
        self._spawn_kubernetes("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false")

    def start_dns(self) -> None:
        """Start the cluster's DNS, once the API server answers."""
        corefile = self.folder / "Corefile"
        corefile.write_text(_COREFILE.format(address=CONTROL_PLANE, kubeconfig=self.kubeconfig), "utf-8")
        self._spawn("coredns", [program("coredns"), "-conf", str(corefile)])

    def stop(self) -> None:
        """End its processes."""
        processes.end(reversed(self._running), grace=10)

    def _spawn_kubernetes(self, name: str, *flags: str) -> None:
        self._spawn(name, [program("kubernetes"), name, *flags])

    def _spawn(self, name: str, command: list[str]) -> None:
        self._running.append(processes.spawn(command, log=self.folder / f"{name}.log"))


def _kubeconfig(authority: Path, token: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": API_SERVER, "certificate-authority": str(authority)}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }


def _new_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
