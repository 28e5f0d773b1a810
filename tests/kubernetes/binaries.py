"""The programs of a Kubernetes cluster, built once from Go modules and kept in the cache folder.

The go.mod and go.sum of each folder in programs pin them. All are under the Apache License 2.0: Kubernetes 1.34.4,
etcd 3.6.4, CoreDNS 1.14.6, and of kube-router 2.1.0 the part that enforces NetworkPolicies.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tablehouse.testing.jars import cache_folder, only_process

_SOURCE = Path(__file__).with_name("programs")
_VERSION = "1.34.4"

#: Each program, its module and the package that it is built from; the longest build comes last.
_PACKAGES = {
    "pause": ("pause", "."),
    "etcd": ("kubernetes", "go.etcd.io/etcd/server/v3"),
    "network-policy": ("network-policy", "."),
    "coredns": ("coredns", "."),
    "kubernetes": ("kubernetes", "."),
}


def program(name: str) -> str:
    """Return the path of one of the programs, which has been built."""
    return str(_folder() / name)


def missing() -> list[str]:
    """Return the programs that are not built yet."""
    return [name for name in _PACKAGES if not (_folder() / name).exists()]


def build() -> None:
    """Build what is missing, for which Go is needed: 7 minutes of two cores. Raises RuntimeError without Go."""
    if not missing():
        return
    if shutil.which("go") is None:
        raise RuntimeError(
            "the programs of the cluster are built with Go 1.25 or newer (https://go.dev/dl), which is missing"
        )
    _folder().mkdir(parents=True, exist_ok=True)
    with only_process(_folder() / ".lock", "the programs of a cluster"):
        for name in missing():  # again: the process that held the lock may have built them
            print(f"Building {name}; kept in {_folder()}", file=sys.stderr, flush=True)
            _build(name)


def _build(name: str) -> None:
    major, minor, _ = _VERSION.split(".")
    version = {"gitVersion": f"v{_VERSION}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in version.items())
    module, package = _PACKAGES[name]
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=_folder()) as partial:
        built = Path(partial) / name
        subprocess.run(
            ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", f"-s -w {flags}", "-o", built, package],
            cwd=_SOURCE / module,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
        )
        built.replace(_folder() / name)


@cache
def _folder() -> Path:
    digest = hashlib.sha256()
    for file in sorted(path for path in _SOURCE.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(_SOURCE)}\n".encode() + file.read_bytes())
    return cache_folder() / f"kubernetes-{_VERSION}-{digest.hexdigest()[:12]}"
