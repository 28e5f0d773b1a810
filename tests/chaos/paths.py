"""The paths of the protocol that workers went, told by their logs: of one scene, and of all that were run."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

#: What tells in a worker's log that a path was taken. Logs outlive the processes, metrics do not.
PATHS = {
    "claims": r"\bclaimed +changelog=",
    "claims refused": r"\bclaim refused\b",
    "claims lost": r"\bclaim lost\b",
    "batches refused because of an old epoch": r"another owner has claimed the partition",
    "batches behind another owner's": r"another owner has appended",
    "unknown outcomes": r"the outcome of an append is not known",
    "replays from the start": r"\breplaying +changelog=.* offset=0\b",
    "replays from a checkpoint": r"\breplaying +changelog=.* offset=[1-9]",
    "promotions of standbys": r"\bpromoted\b",
    "copies warmed up": r"\bwarm +partitions=",
    "quarantines": r"store quarantined",
}

#: What the whole of the faults cannot but do. Claims that are refused or lost, a batch behind another owner's and a
#: sealed producer id take timing that only the model has (tests/model/test_histories.py, WAYS).
NEEDED = [
    "claims",
    "batches refused because of an old epoch",
    "unknown outcomes",
    "replays from the start",
    "replays from a checkpoint",
    "promotions of standbys",
    "copies warmed up",
    "quarantines",
]

#: How often each path was taken in all the scenes so far.
TAKEN: Counter[str] = Counter()

_FOLDER = Path(__file__).parent

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def paths_in(log: str) -> dict[str, int]:
    """Count the paths that workers went, given what they logged."""
    text = _COLOURS.sub("", log)
    return {name: len(re.findall(pattern, text)) for name, pattern in PATHS.items()}


def listed(taken: Mapping[str, int]) -> str:
    """Show the counts of all paths, a line each."""
    return "\n".join(f"{taken.get(name, 0):6} {name}" for name in PATHS)


def never_taken(taken: Mapping[str, int]) -> list[str]:
    """Name the paths that had to be taken and were not."""
    return [name for name in NEEDED if not taken.get(name)]


def all_run(modules: set[Path], arguments: Sequence[str], *, left_out: bool) -> bool:
    """Say whether every test of the faults is run, by what was collected, told to pytest, and left out by it."""
    return not left_out and not any("::" in told for told in arguments) and modules >= {*_FOLDER.glob("test_*.py")}
