"""The cgroups of the cluster's pods, made before the kubelets start and removed once every process has ended."""

import contextlib
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")


def make(path: str) -> None:
    """Make a cgroup of this path in every hierarchy, of cgroup v1 or v2."""
    for hierarchy in _hierarchies():
        folder = hierarchy / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for parent in reversed(folder.relative_to(hierarchy).parents):
            _share(hierarchy / parent)
        for name in ("cpuset.cpus", "cpuset.mems"):  # of v1: empty in a new cgroup, in which nothing can run then
            for number in range(1, len(folder.relative_to(hierarchy).parts) + 1):
                one = hierarchy.joinpath(*folder.relative_to(hierarchy).parts[:number])
                if hierarchy.name == "cpuset" and not (one / name).read_text().strip():
                    (one / name).write_text((one.parent / name).read_text())


def remove(path: str) -> None:
    """Remove a cgroup and those in it, whose processes have ended."""
    for hierarchy in _hierarchies():
        top = hierarchy / path.lstrip("/")
        if top.is_dir():
            inner = [folder for folder in top.rglob("*") if folder.is_dir()]
            for folder in [*sorted(inner, reverse=True), top]:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _hierarchies() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [folder for folder in _ROOT.iterdir() if (folder / "cgroup.procs").exists() and not folder.is_symlink()]


def _share(folder: Path) -> None:
    """Let the cgroups in one of v2 limit what is in them."""
    file = folder / "cgroup.subtree_control"
    for controller in _CONTROLLERS:
        if file.exists():
            with contextlib.suppress(OSError):  # not every machine has every controller
                file.write_text(f"+{controller}")
