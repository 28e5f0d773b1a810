from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from structlog.testing import capture_logs

from tablehouse.kafka.record_batches import UnreadableBatch
from tablehouse.kafka.skips import Skip, Skips, skip_topic
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import Bounds, Cursor, LogRecord, LogSlice, LogUnavailable
from tablehouse.testing.simulated.broker import Record

SOURCE, OTHER = TopicPartition("orders", 3), TopicPartition("orders", 4)
PLACE = TopicPartition("group-skips", 0)

#: What the broker could not read: up to which offset is not known.
REFUSED = UnreadableBatch(SOURCE, 7, 7, ValueError("damaged"), is_refused=True)


class _Cursor(NamedTuple):
    piece: LogSlice

    async def next(self) -> LogSlice:
        """Return everything."""
        return self.piece


class Log:
    """Implements LogReader for the skip topic."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self.start = 0
        self.away = False
        self.reads: list[int] = []

    def decide(self, source: TopicPartition, first: int, last: int) -> None:
        """Append a decision."""
        self.values.append(Skip(*source, first, last, "damaged", 17).encode())

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Bounds]:
        """Return where it begins and ends."""
        assert list(partitions) == [PLACE]
        if self.away:
            raise LogUnavailable("no broker")
        return {PLACE: Bounds(self.start, self.start + len(self.values))}

    @asynccontextmanager
    async def read(self, partition: TopicPartition, offset: int) -> AsyncIterator[Cursor]:
        """Read everything from an offset on in one slice."""
        assert partition == PLACE
        self.reads.append(offset)
        end = self.start + len(self.values)
        records = [Record(at, 17, b"", self.values[at - self.start]) for at in range(offset, end)]
        yield _Cursor(LogSlice(records, end))

    async def peek(self, partition: TopicPartition, offset: int) -> LogRecord | None:
        """Not used."""
        raise AssertionError((partition, offset))


async def test_a_decision_is_found_for_its_offsets_of_its_partition_alone_and_read_once() -> None:
    log = Log()
    skips = Skips(log, "group")
    assert skip_topic("group") == PLACE.topic
    assert await skips.look_up(SOURCE, 7, REFUSED) is None
    log.decide(SOURCE, 5, 7)
    log.decide(SOURCE, 8, 8)
    assert skips.after(SOURCE, 7, REFUSED) is None
    assert await skips.look_up(SOURCE, 7, REFUSED) == 8
    assert [await skips.look_up(SOURCE, offset, REFUSED) for offset in (4, 5, 8, 9)] == [None, 8, 9, None]
    assert await skips.look_up(OTHER, 7, REFUSED) is None
    assert log.reads == [0]
    log.decide(OTHER, 0, 0)
    assert await skips.look_up(OTHER, 0, REFUSED) == 1
    assert log.reads == [0, 2]
    assert skips.decision(SOURCE, 5, 7) == skips.decision(SOURCE, 6, 6) == Skip(*SOURCE, 5, 7, "damaged", 17)
    # Decided in two parts, or in part.
    assert [skips.decision(SOURCE, first, last) for first, last in ((5, 8), (4, 5), (7, 8))] == [None] * 3


async def test_what_is_known_stays_while_the_topic_cannot_be_read_and_what_is_no_decision_is_logged() -> None:
    log = Log()
    skips = Skips(log, "group")
    log.decide(SOURCE, 5, 7)
    log.values += [b"nonsense", None]
    with capture_logs() as logged:
        assert await skips.look_up(SOURCE, 5, REFUSED) == 8
        log.away = True
        assert await skips.look_up(SOURCE, 6, REFUSED) == 8
    assert [(line["event"], line.get("offset")) for line in logged] == [
        ("not a decision to skip offsets", 1),
        ("not a decision to skip offsets", 2),
        ("the skip topic cannot be read", None),
    ]


async def test_a_topic_that_was_deleted_and_created_again_is_read_from_its_start() -> None:
    log = Log()
    skips = Skips(log, "group")
    log.decide(SOURCE, 5, 7)
    log.decide(SOURCE, 8, 9)
    await skips.refresh()
    log.values.clear()
    log.decide(SOURCE, 20, 20)
    assert await skips.look_up(SOURCE, 20, REFUSED) == 21


async def test_a_decision_that_is_older_than_what_the_topic_holds_passes_over_nothing_that_can_be_read() -> None:
    log = Log()
    skips = Skips(log, "group")
    log.decide(SOURCE, 1, 30)
    damaged = UnreadableBatch(SOURCE, 7, 9, ValueError("damaged"))
    assert await skips.look_up(SOURCE, 7, damaged) == 10
    assert skips.after(SOURCE, 31, damaged) is None
