"""The image of the project's Dockerfile, built without a registry: its base is made of Debian's packages."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from deploy.helm.generate import CHART
from tablehouse.testing.jars import cache_folder, only_process
from tests.kubernetes import binaries
from tests.support.dockerfile import instructions

_PROJECT = Path(__file__).parents[2]
_RELEASE = "bookworm"
_INSIDE = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")

#: The image that the chart asks for unless it is told another one.
WORKER = f"docker.io/library/tablehouse:{yaml.safe_load((CHART / 'Chart.yaml').read_text('utf-8'))['appVersion']}"

#: What holds the namespaces of a pod.
PAUSE = "docker.io/library/tablehouse-pause:1"


def base_is_cached() -> bool:
    """Return whether the base is there already."""
    return _base().exists()


def build(folder: Path) -> list[Path]:
    """Build the images and return an archive of each, in this folder."""
    cache = _base().parent
    cache.mkdir(parents=True, exist_ok=True)
    with only_process(cache / ".lock", "the base of the image"):
        if not base_is_cached():
            print(f"Making the base of the image; kept in {cache}", file=sys.stderr, flush=True)
            _make_base()
        buildah = _Buildah(cache / "storage", folder)
        for name in _named_bases():
            buildah.build(name, cache, f"FROM scratch\nADD {_base().name} /\n")
        buildah.build(WORKER, _PROJECT, (_PROJECT / "Dockerfile").read_text("utf-8"))
        shutil.copy(binaries.program("pause"), folder / "pause")
        buildah.build(PAUSE, folder, 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
        return [buildah.archive(WORKER, folder / "worker.tar"), buildah.archive(PAUSE, folder / "pause.tar")]


class _Buildah:
    """Builds in a storage of its own, whose layers are kept, and leaves none of it mounted."""

    def __init__(self, storage: Path, folder: Path) -> None:
        places = ["--root", str(storage), "--runroot", str(folder / "buildah-run")]
        self._command = ["unshare", "--mount", "buildah", *places]
        self._folder = folder

    def build(self, name: str, context: Path, dockerfile: str) -> None:
        """Build an image out of a Dockerfile and the files of a folder, without pulling anything."""
        file = self._folder / "Dockerfile"
        file.write_text(dockerfile, "utf-8")
        flags = ["--layers", "--isolation", "chroot", "--network", "host", "--pull-never", "--quiet"]
        self._run("bud", *flags, "--tag", name, "--file", str(file), str(context))

    def archive(self, name: str, file: Path) -> Path:
        """Write an image into a file and return that."""
        self._run("push", "--quiet", name, f"docker-archive:{file}:{name}")
        return file

    def _run(self, *arguments: str) -> None:
        ended = subprocess.run(
            [*self._command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"buildah {' '.join(arguments)} failed:\n{ended.stdout[-4000:]}")


def _base() -> Path:
    return cache_folder() / f"image-base-{_RELEASE}" / "base.tar"


def _named_bases() -> list[str]:
    """Return the images that the Dockerfile begins its stages with."""
    found = instructions()
    arguments = dict(one.rest.split("=", 1) for one in found if one.name == "ARG")
    names = [one.rest.split()[0] for one in found if one.name == "FROM"]
    for argument, value in arguments.items():
        names = [name.replace(f"${{{argument}}}", value) for name in names]
    return [f"docker.io/library/{name}" for name in names]


def _make_base() -> None:
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=_base().parent) as partial:
        root, archive = Path(partial) / "root", Path(partial) / "base.tar"
        _run("debootstrap", "--variant=minbase", f"--include={_INSIDE}", _RELEASE, str(root))
        for mark in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):  # the images that this stands for have none
            mark.unlink()
        # A machine may reach the package registry through a proxy with an authority of its own.
        shutil.copyfile(Path("/") / _CERTIFICATES, root / _CERTIFICATES)
        shutil.rmtree(root / "var/cache/apt")
        shutil.rmtree(root / "var/lib/apt/lists")
        _run(
            "tar",
            "--create",
            "--numeric-owner",
            "--exclude=./dev/*",
            "--file",
            str(archive),
            "--directory",
            str(root),
            ".",
        )
        archive.replace(_base())


def _run(*command: str) -> None:
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ended.stdout[-4000:]}")
