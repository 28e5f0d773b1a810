"""The locks are what pyproject.toml asks for, whole, with hashes and without addresses."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
_NAMES = ["build", "demo", "dev", "lock", "worker"]


def _locked(name: str) -> dict[str, Requirement]:
    """Return the requirements of a lock by name; a package may be locked for some interpreters only."""
    text = (_ROOT / "deploy" / "locks" / f"{name}.txt").read_text("utf-8")
    entries = [Requirement(line) for line in re.findall(r"^(\w[^#\\\n]*?) *\\$", text, re.MULTILINE)]
    return {canonicalize_name(entry.name): entry for entry in entries}


def _asked(name: str) -> list[Requirement]:
    project: dict[str, Any] = _PROJECT["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    groups: dict[str, list[str]] = _PROJECT["dependency-groups"]
    wanted = {
        "build": groups["build"] + _PROJECT["build-system"]["requires"],
        "lock": groups["lock"],
        "worker": project["dependencies"],
    }
    wanted["demo"] = [
        *wanted["worker"],
        *extras["demo"],
        *wanted["build"],
        *groups["flights"],
    ]
    wanted["dev"] = [*wanted["demo"], *extras["dev"]]
    requirements = [Requirement(text) for text in wanted[name]]
    return [requirement for requirement in requirements if requirement.name != project["name"]]


@pytest.mark.parametrize("name", _NAMES)
def test_a_lock_has_a_version_within_every_range_of_the_project(name: str) -> None:
    locked = _locked(name)
    for requirement in _asked(name):
        found = locked[canonicalize_name(requirement.name)]
        (pin,) = found.specifier
        assert pin.operator == "==", found
        assert requirement.specifier.contains(pin.version), f"{name}.txt has {found}; run make lock"


@pytest.mark.parametrize("name", _NAMES)
def test_every_entry_of_a_lock_has_a_hash_and_no_address(name: str) -> None:
    text = (_ROOT / "deploy" / "locks" / f"{name}.txt").read_text("utf-8")
    assert "://" not in text
    for entry in re.split(r"\n(?=\w)", text.split("make lock", 1)[1].strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_locks_agree_on_every_version() -> None:
    everything = _locked("dev")
    for name in ("build", "demo", "worker"):
        for package, requirement in _locked(name).items():
            assert everything[package].specifier == requirement.specifier, package
