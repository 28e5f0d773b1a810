"""Run the chart in a Kubernetes of its own: `make kubernetes`.

Builds what is missing, then runs the tests of this folder in namespaces of their own, with which everything ends.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tablehouse.errors import SetupError
from tablehouse.testing import processes
from tablehouse.testing.jars import kafka_class_path
from tests.kubernetes import binaries, cgroups, image, machine
from tests.support.helm import HELM_3, HELM_4

#: The folder of a run, of which the tests know by this variable; without it none is collected.
FOLDER = "KUBERNETES_TEST_FOLDER"


def main() -> int:
    """Return the exit code of pytest's, or 2 when this machine cannot run a cluster."""
    parser = argparse.ArgumentParser(prog="make kubernetes")
    parser.add_argument("--brief", action="store_true", help="only: install, helm test, one roll under load")
    parser.add_argument(
        "--where-possible",
        action="store_true",
        help="leave it out where it cannot run, or would have to build for long",
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder of the run, with the log of every program")
    options, pytest_arguments = parser.parse_known_args()
    processes.leave_by_ctrl_c()

    reason = machine.what_is_missing()
    if reason is None and options.where_possible and (binaries.missing() or not image.base_is_cached()):
        reason = "its programs are not built here yet, which takes minutes (`make kubernetes` builds and keeps them)"
    if reason is not None:
        print(f"The tests on a real Kubernetes are left out: {reason}.", file=sys.stderr)
        return 0 if options.where_possible else 2

    folder = Path(tempfile.mkdtemp(prefix="tablehouse-kubernetes-"))
    cgroup = f"/{folder.name}"
    try:
        try:
            _prepare(folder)
        except (OSError, RuntimeError, SetupError, subprocess.CalledProcessError) as error:
            print(f"The tests on a real Kubernetes are left out: {error}", file=sys.stderr)
            return 0 if options.where_possible else 2
        chosen = ["-m", "brief"] if options.brief else []
        pytest = [
            sys.executable,
            "-m",
            "pytest",
            "tests/kubernetes",
            "-p",
            "no:cacheprovider",
            *chosen,
            *pytest_arguments,
        ]
        # The shell is the first process in there and takes care of those whose parents have ended.
        inside = ["sh", "-c", '"$@"; exit $?', "sh", *pytest]
        process = subprocess.Popen([*machine.UNSHARE, *inside], env={**os.environ, FOLDER: str(folder)})
        try:
            return process.wait()
        finally:
            process.kill()
            process.wait()
    finally:
        cgroups.remove(cgroup)
        if options.keep:
            print(f"The logs of this run are in {folder}.", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: Path) -> None:
    """Fetch and build everything that the network is needed for: there is none in the namespaces."""
    machine.install_packages()
    binaries.build()
    kafka_class_path()
    for helm in (HELM_3, HELM_4):
        helm.program()
    HELM_4.program("kubectl")
    image.build(folder)


if __name__ == "__main__":
    sys.exit(main())
