"""What this machine must have for a cluster of its own, and the packages of Debian's that are installed for it."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

#: Licences: Apache-2.0 (containerd, runc, CNI plugins, buildah), MIT (debootstrap) and GPL (the others).
PACKAGES = (
    "buildah",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "debootstrap",
    "ipset",
    "iptables",
    "iproute2",
    "runc",
)

#: Begins a process with namespaces of its own, which all end with it.
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def what_is_missing() -> str | None:
    """Return what keeps this machine from running a cluster, in words for a person; None when nothing does."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "it runs on Linux on x86-64 only"
    if not shutil.which("apt-get") or not shutil.which("dpkg-query"):
        return "it takes containerd and others from Debian's packages, and there is no apt-get here"
    if os.geteuid() != 0:
        return "it starts containers, for which it has to be root (sudo make kubernetes)"
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        return "namespaces cannot be made here: a container needs to be a privileged one"
    if not Path("/sys/fs/cgroup/memory").is_dir() and not Path("/sys/fs/cgroup/cgroup.controllers").is_file():
        return "there are no cgroups at /sys/fs/cgroup"
    return None


def install_packages() -> None:
    """Install those of PACKAGES that are missing."""
    if missing := [name for name in PACKAGES if not _is_installed(name)]:
        if subprocess.run(["apt-cache", "show", *missing], capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update", "--quiet"], check=True)
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def _is_installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.startswith("ii")
