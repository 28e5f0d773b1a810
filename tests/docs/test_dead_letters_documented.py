import re
from pathlib import Path

from tablehouse.model import TopicPartition
from tablehouse.tasks.dead_letters import REASONS, DeadLetter, without_content
from tablehouse.tasks.ingest import BadRecord
from tablehouse.testing.simulated.broker import Record

DOCUMENT = Path(__file__).parents[2] / "docs" / "dead-letters.md"


def test_every_header_of_a_dead_letter_is_documented_and_no_other() -> None:
    letter = DeadLetter("t", TopicPartition("source", 0), BadRecord(Record(0, 1, b"k", b"v"), "oversized", "too large"))
    written = {name for name, _ in without_content(letter, "group", "worker", 1).headers}
    cells = "".join(re.findall(r"^\| (`__.*?) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE))
    named = re.findall(r"`([^`]+)`", cells)
    assert {name if name.startswith("__") else f"__tablehouse.errors{name}" for name in named} == written


def test_every_reason_is_documented_and_no_other() -> None:
    (cell,) = re.findall(r"^\| `__tablehouse\.errors\.reason` \| (.*) \|$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"`([a-z_]+)`", cell)) == set(REASONS)
