"""What keeps a task from going on: what passes, what a person has to act on, and when it is forgotten."""

from collections.abc import Callable

import pytest

from tablehouse.model import TopicPartition
from tablehouse.tasks.dead_letters import LettersUndelivered
from tablehouse.tasks.impediments import Impediments, kind_of
from tablehouse.tasks.ingest import BadRecord, RecordRefused
from tablehouse.tasks.log import Fenced, LaneOutage, PartitionMissing, Unreadable
from tablehouse.tasks.table_state import ChangelogRefused, Untrusted
from tablehouse.tasks.takeover import SourceRefused
from tablehouse.testing.simulated.broker import Record

SOURCE, CHANGELOG = TopicPartition("source", 0), TopicPartition("changelog", 0)


@pytest.fixture
def impediments() -> Impediments:
    return Impediments([SOURCE])


def noted(impediments: Impediments, error: Exception) -> str:
    kind = kind_of(error)
    assert kind is not None
    return impediments.note(error, kind)


def test_only_an_error_that_passes_has_a_kind() -> None:
    assert kind_of(Fenced("epoch 3")) == "another owner has claimed the partition"
    assert kind_of(PartitionMissing("gone")) == "the changelog is missing"
    assert kind_of(Untrusted("torn")) is None
    assert kind_of(KeyError("a bug")) is None


@pytest.mark.parametrize("error", [SourceRefused("another topic"), ChangelogRefused("no claim")])
def test_a_refusal_blocks_until_an_attempt_finds_otherwise(impediments: Impediments, error: Exception) -> None:
    reason = noted(impediments, error)
    assert reason.endswith(f"refused: {error}")
    impediments.start()
    noted(impediments, Fenced("epoch 3"))
    assert impediments.block(None) == reason
    impediments.pass_refusal()
    assert impediments.block(None) is None


@pytest.mark.parametrize(
    ("partition", "advice"), [(SOURCE, "skip them with `tablehouse skip`"), (CHANGELOG, "built from its source")]
)
def test_records_that_cannot_be_read_block_with_advice(
    impediments: Impediments, partition: TopicPartition, advice: str
) -> None:
    reason = noted(impediments, Unreadable("a damaged batch", partition, 3, 4))
    assert reason.endswith(advice)
    assert impediments.block(None) == reason


def test_what_the_broker_could_not_read_just_now_blocks_the_second_time(impediments: Impediments) -> None:
    error = Unreadable("the broker's disk fails", SOURCE, 3, 4, may_pass=True)
    noted(impediments, error)
    assert impediments.block(None) is None
    noted(impediments, error)
    assert impediments.block(None) is not None


def test_dead_letters_that_cannot_be_written_halt_and_do_not_block(impediments: Impediments) -> None:
    reason = noted(impediments, LettersUndelivered("no leader"))
    assert (impediments.block(None), impediments.halt(None)) == (None, reason)
    impediments.pass_records()
    assert impediments.halt(None) is None


@pytest.mark.parametrize("lasts", [True, False])
def test_an_outage_of_the_lane_blocks_once_it_lasts(impediments: Impediments, lasts: bool) -> None:  # noqa: FBT001
    assert impediments.block(LaneOutage("no broker", lasts)) == ("no broker" if lasts else None)


@pytest.mark.parametrize("forget", [Impediments.start, Impediments.clear])
def test_a_stop_at_a_record_holds_until_the_task_is_started_again(
    impediments: Impediments, forget: Callable[[Impediments], None]
) -> None:
    bad = BadRecord(Record(7, 1000, b"k", b"v"), "undecodable_value", "no JSON")
    reason = impediments.note_stop(RecordRefused(SOURCE, bad))
    assert "offset 7 of source[0]" in reason
    impediments.pass_records()
    assert (impediments.is_stopped, impediments.block(None)) == (True, reason)
    forget(impediments)
    assert (impediments.is_stopped, impediments.block(None)) == (False, None)
