"""What counts as a path of the protocol, which of them have to be taken, and when that is judged."""

from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.chaos.paths import NEEDED, PATHS, all_run, never_taken, paths_in

#: What a worker logs when it goes each path.
EVENTS: dict[str, dict[str, Any]] = {
    "claims": {"event": "claimed", "changelog": "c-0", "epoch": (0, 1)},
    "claims refused": {"event": "claim refused", "changelog": "c-0"},
    "claims lost": {"event": "claim lost", "changelog": "c-0"},
    "batches refused because of an old epoch": {
        "event": "partition cannot go on",
        "reason": "another owner has claimed the partition: the partition has a newer epoch",
    },
    "batches behind another owner's": {"event": "partition cannot go on", "reason": "another owner has appended"},
    "unknown outcomes": {
        "event": "partition cannot go on",
        "reason": "the outcome of an append is not known: no answer",
    },
    "replays from the start": {"event": "replaying", "changelog": "c-0", "offset": 0, "end": 10},
    "replays from a checkpoint": {"event": "replaying", "changelog": "c-0", "offset": 10, "end": 12},
    "promotions of standbys": {"event": "promoted", "table": "t"},
    "copies warmed up": {"event": "warm", "partitions": 2},
    "quarantines": {"event": "store quarantined; it is rebuilt from the changelog", "table": "t"},
}

MODULES = {*Path(__file__).parent.glob("test_*.py")}


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_told_by_what_is_logged_and_by_nothing_else(path: str, *, colours: bool) -> None:
    line = structlog.dev.ConsoleRenderer(colors=colours)(None, "info", {"level": "info", **EVENTS[path]})
    assert paths_in(f"{line}\n{line}\n") == {name: 2 * (name == path) for name in PATHS}


def test_every_path_that_has_to_be_taken_is_missed() -> None:
    everything = dict.fromkeys(PATHS, 1)
    assert never_taken(everything) == []
    assert never_taken({}) == NEEDED
    for name in NEEDED:
        assert never_taken(everything | {name: 0}) == [name]


@pytest.mark.parametrize(
    ("modules", "arguments", "left_out", "whole"),
    [
        (MODULES, ["tests/chaos"], False, True),
        (MODULES | {Path("/elsewhere/test_other.py")}, ["tests"], False, True),
        (MODULES - {Path(__file__)}, ["tests/chaos"], False, False),
        (MODULES, ["tests/chaos"], True, False),
        (MODULES, ["tests/chaos/test_broker.py::test_the_broker_restarts", "tests/chaos"], False, False),
    ],
)
def test_paths_are_judged_when_everything_was_run(
    modules: set[Path], arguments: list[str], *, left_out: bool, whole: bool
) -> None:
    assert all_run(modules, arguments, left_out=left_out) is whole
