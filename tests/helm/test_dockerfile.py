import re
import tomllib
from pathlib import Path

import pytest

from deploy.helm.generate import CHART
from tests.support.dockerfile import all_of, environment_of, instructions, stages
from tests.support.helm import HELM_4, only

_ROOT = Path(__file__).parents[2]


def test_only_instructions_that_docker_knows_are_used() -> None:
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "LABEL", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"}
    assert {instruction.name for instruction in instructions()} <= known | {"ENTRYPOINT", "CMD"}


def test_nothing_is_added_from_an_address_and_no_base_floats() -> None:
    assert not [instruction for instruction in instructions() if "://" in instruction.rest]
    for stage in stages():
        image = stage[0].rest.split()[0]
        assert re.fullmatch(r"python:\$\{PYTHON\}(-slim)?-bookworm", image)
    (python,) = (rest for name, rest in instructions()[:1] if name == "ARG")
    assert re.fullmatch(r"PYTHON=3\.\d+", python)


def test_python_is_one_that_the_project_supports() -> None:
    least = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    (version,) = re.findall(r"PYTHON=3\.(\d+)", instructions()[0].rest)
    assert int(version) >= int(least.removeprefix(">=3."))


def test_the_last_stage_is_slim_and_installs_nothing() -> None:
    last = stages()[-1]
    assert "-slim-" in last[0].rest
    assert all(not re.search(r"\b(pip|apt-get|apt|gcc|curl|wget)\b", command) for command in all_of(last, "RUN"))
    assert all_of(last, "COPY") == ["--from=build /opt/tablehouse /opt/tablehouse"]


def test_the_image_runs_the_worker_as_a_number_that_is_not_root(home: Path) -> None:
    last = stages()[-1]
    (user,) = all_of(last, "USER")
    assert all_of(last, "ENTRYPOINT") == ['["tablehouse"]']
    assert all_of(last, "CMD") == ['["worker"]']
    context = only(HELM_4.template({}, home), "StatefulSet")["spec"]["template"]["spec"]["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert int(context["runAsUser"]) > 0
    # Nothing is made or changed after the user is set.
    names = [instruction.name for instruction in last]
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :])


def test_the_data_directory_is_the_user_s_and_the_one_the_chart_mounts(home: Path) -> None:
    last = stages()[-1]
    (made,) = all_of(last, "RUN")
    owner, group, folder = re.fullmatch(r"install -d -o (\d+) -g (\d+) (\S+)", made).groups()  # type: ignore[union-attr]
    assert all_of(last, "USER") == [f"{owner}:{group}"]
    assert environment_of(last)["TABLEHOUSE_DATA_DIR"] == folder
    container = only(HELM_4.template({}, home), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert folder in [mount["mountPath"] for mount in container["volumeMounts"]]


@pytest.mark.parametrize("source", ["pyproject.toml", "README.md", "LICENSE", "app", "deploy/locks"])
def test_what_is_copied_exists_and_is_not_ignored(source: str) -> None:
    copied = {path.rstrip("/") for rest in all_of(stages()[0], "COPY") for path in rest.split()[:-1]}
    assert source in copied
    assert (_ROOT / source).exists()
    assert f"!{source}" in (_ROOT / ".dockerignore").read_text("utf-8").splitlines()


def test_the_image_has_everything_that_the_wheel_is_built_from() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
    needed = {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *(package.split("/")[0] for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]),
    }
    kept = [line.removeprefix("!") for line in (_ROOT / ".dockerignore").read_text("utf-8").splitlines()]
    assert needed <= set(kept)
    assert {path for rest in all_of(stages()[0], "COPY") for path in rest.split()[:-1]} >= needed


def test_everything_that_the_image_installs_is_locked_with_hashes() -> None:
    installs = re.findall(r"pip install [^&]+", " && ".join(all_of(stages()[0], "RUN")))
    ours = [line for line in installs if "--no-index" in line]
    assert len(ours) == 1
    for line in installs:
        assert "--no-deps" in line
        assert line in ours or re.search(r"--require-hashes --requirement deploy/locks/(worker|build)\.txt", line)


def test_the_chart_s_version_is_that_of_the_project() -> None:
    version = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f'appVersion: "{version}"' in (CHART / "Chart.yaml").read_text("utf-8").splitlines()
