"""The project's Dockerfile, read without building it."""

import re
from pathlib import Path
from typing import NamedTuple

_DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


class Instruction(NamedTuple):
    """A line of the Dockerfile, with those that continue it."""

    name: str
    rest: str


def instructions() -> list[Instruction]:
    """Return every instruction of the Dockerfile."""
    text = _DOCKERFILE.read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage, its FROM first."""
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction.name == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def all_of(stage: list[Instruction], name: str) -> list[str]:
    """Return what follows the name in each instruction of that name."""
    return [instruction.rest for instruction in stage if instruction.name == name]


def environment_of(stage: list[Instruction]) -> dict[str, str]:
    """Return the variables that a stage sets."""
    pairs = " ".join(all_of(stage, "ENV")).split()
    return dict(pair.split("=", 1) for pair in pairs)
