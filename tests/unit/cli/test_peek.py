"""What `tablehouse peek` prints of records that nobody should let near a terminal as they are."""

import json

import pytest

from tablehouse.cli.peek import _json, _text
from tablehouse.inspection.sample import SampledRecord
from tablehouse.inspection.shown import ShownRecord
from tablehouse.model import TopicPartition

RECORD = SampledRecord(TopicPartition("orders", 0), 7, -1, b"", b"", ())


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\n0:8  -  forged", "\r", "\x9b2J", "\u202e", "\U000e0001", "\x7f"])
def test_a_record_stays_in_its_line_and_tells_a_terminal_nothing(hostile: str) -> None:
    for line in (
        ShownRecord(RECORD, hostile, "1", None),
        ShownRecord(RECORD, "k", hostile, None),
        ShownRecord(RECORD, "k", None, hostile),
    ):
        assert _text(line).isprintable()
        assert _json(line).isprintable()
        found = json.loads(_json(line))
        assert (found["key"], found["row"], found["problem"]) == line[1:]
    assert "Zoë 😀" in _text(ShownRecord(RECORD, "k", "Zoë 😀", None))
