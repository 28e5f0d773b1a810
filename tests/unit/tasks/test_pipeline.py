"""An owner's batches on their way through a simulated changelog into the store."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tablehouse.catalog.spec import KeySpec, OnError, SourceSpec, TableSpec, ValueSpec
from tablehouse.formats.json_pieces import PIECE_BYTES
from tablehouse.formats.values import LARGE_VALUE_BYTES, value_format
from tablehouse.formats.variants import Known
from tablehouse.model import Epoch, TopicPartition
from tablehouse.stores.store import StoreClosed
from tablehouse.tasks.bad_records import BAD_RECORDS_LOGGED
from tablehouse.tasks.dead_letters import LettersUndelivered
from tablehouse.tasks.doubts import Doubts, Misplaced
from tablehouse.tasks.ingest import LaneBatch, RecordRefused
from tablehouse.tasks.log import Bounds, Fenced, LogSlice, OutcomeUnknown
from tablehouse.tasks.pipeline import (
    BYTES_PER_SLICE,
    LANE_BATCH,
    LANE_BATCH_BYTES,
    RECORDS_PER_SLICE,
    NotContiguous,
    Pipeline,
)
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.records import CLAIM_KEY, POSITION_KEY, Claim, PositionRecord, anchor_of, decode, encode
from tablehouse.tasks.table_state import TableState
from tablehouse.telemetry import Metrics
from tablehouse.testing.simulated.broker import Log, Record
from tablehouse.testing.simulated.group import MemberLease
from tablehouse.testing.simulated.loop import run_virtual
from tablehouse.testing.simulated.ports import (
    SimulatedClock,
    SimulatedDeadLetters,
    SimulatedReader,
    SimulatedWriter,
    measured_clock,
)
from tablehouse.testing.simulated.store import Disk, MemoryStore
from tablehouse.testing.simulated.world import Weather, World
from tablehouse.turns import Turns
from tests.model.tables import Table
from tests.support.positions import with_names
from tests.support.schemas import NO_REGISTRY, MemorySchemas

SOURCE = TopicPartition("source", 0)
EPOCH = Epoch(0, 1)


def records(first: int, after: int, value: bytes | None = b"v") -> list[Record]:
    return [Record(offset, 1000 + offset, b"k%d" % offset, value) for offset in range(first, after)]


class Owner:
    """An owner that has just claimed an empty changelog; batches of more than `limit` bytes do not fit."""

    def __init__(
        self, table: str, limit: int, on_error: OnError = "skip", inputs: tuple[TopicPartition, ...] = (SOURCE,)
    ) -> None:
        self.table = Table(table, on_error=on_error)
        self.changelog = self.table.changelog(SOURCE)
        self.world = World(1, inputs, [self.changelog], limit)
        self.store = MemoryStore(Disk())
        self.metrics = Metrics("test")
        self.findings: list[int] = []
        self.doubts = Doubts(lambda: self.findings.append(1))
        self.writer = SimulatedWriter(self.world)
        self.codec = self.table.codec(SOURCE)
        self.identity = replace(self.table.identity(SOURCE), inputs=with_names(*inputs))
        self.state = self.new_state()
        self.applied: list[int] = []
        self.schemas = MemorySchemas()
        self.steps_aside = 0

    @property
    def log(self) -> Log:
        """Return the changelog partition."""
        return self.world.changelogs[self.changelog]

    async def claim(self) -> Pipeline:
        """Claim, and return the pipeline of this ownership."""
        self.state.load()
        self.state.begin(Bounds(0, 0))
        claim = Claim(EPOCH, b"nonce", 1, "w", dict(self.state.fingerprint), b"log id")
        await self.writer.claim(self.changelog, EPOCH, CLAIM_KEY, encode(claim))
        self.state.rewind()
        found, following = self.log.read(0, 10)
        await self.state.apply(LogSlice(found, following))
        return self.pipeline()

    def new_state(self) -> TableState:
        """Return the state of a process that has loaded nothing."""
        return TableState(self.identity, self.store, measured_clock(self.world), self.doubts)

    def pipeline(self) -> Pipeline:
        """Return another pipeline of this ownership."""
        return Pipeline(
            self.state,
            self.codec,
            self.ports(),
            lambda: self.applied.append(self.state.reached.total),
            self._step_aside,
        )

    def ports(self) -> Ports:
        """Return what the owner reaches."""
        return Ports(
            changelog=SimulatedReader(self.world),
            sources=SimulatedReader(self.world),
            writer=self.writer,
            dead_letters=SimulatedDeadLetters(self.world),
            lease=MemberLease("w", self.world.group, self.world.hop),
            clock=SimulatedClock(),
            broker_clock=measured_clock(self.world),
            metrics=self.metrics,
            doubts=self.doubts,
            known=Known(self.schemas),
            turns=Turns(),
            sleep=asyncio.sleep,
            on_fatal=lambda _error: None,
            worker_id="w",
        )

    def _step_aside(self) -> None:
        self.steps_aside += 1

    def batches(self) -> list[tuple[list[bytes | None], PositionRecord]]:
        """Return what was appended after the claim: the keys of each batch and the position that closes it."""
        found: list[tuple[list[bytes | None], PositionRecord]] = []
        keys: list[bytes | None] = []
        for record in self.log.records[1:]:
            if record.key == POSITION_KEY:
                found.append((keys, decode(PositionRecord, record.value or b"")))
                keys = []
            else:
                keys.append(record.key)
        assert not keys, "a batch without a position"
        return found

    def spans(self) -> list[tuple[int, int]]:
        """Return the first and the last source offset of every batch."""
        return [(position.first, position.last) for _, position in self.batches()]

    def payloads(self) -> dict[bytes, bytes]:
        """Return the store's rows without their heads."""
        return {key: row[18:] for key, row in self.store.rows().items()}

    def skipped(self, reason: str) -> float:
        """Return how many records were counted as skipped."""
        labels = {"table": self.table.name, "reason": reason}
        return self.metrics.registry.get_sample_value("tablehouse_records_skipped_total", labels) or 0.0

    def lettered(self, reason: str) -> float:
        """Return how many records were counted as written to the dead letters."""
        labels = {"table": self.table.name, "reason": reason}
        return self.metrics.registry.get_sample_value("tablehouse_dead_letters_total", labels) or 0.0

    def ingested(self) -> float:
        """Return how many records were counted as applied."""
        labels = {"table": self.table.name}
        return self.metrics.registry.get_sample_value("tablehouse_ingest_records_total", labels) or 0.0


Scene = Callable[[Owner, Pipeline], Coroutine[Any, Any, None]]


def owned(
    table: str = "upsert", limit: int = 1_000_000, on_error: OnError = "skip"
) -> Callable[[Scene], Callable[[], None]]:
    """Make a test, on virtual time, of what happens to an owner and its pipeline."""

    def decorate(scene: Scene) -> Callable[[], None]:
        def test() -> None:
            async def run() -> None:
                owner = Owner(table, limit, on_error)
                pipeline = await owner.claim()
                await scene(owner, pipeline)
                await pipeline.drop()

            run_virtual(run())

        test.__name__, test.__module__ = scene.__name__, scene.__module__
        return test

    return decorate


def named(logs: Sequence[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


@owned()
async def test_a_batch_is_rows_and_last_one_position_and_then_in_the_store(owner: Owner, pipeline: Pipeline) -> None:
    source = records(0, 3)
    await pipeline.feed(LaneBatch.of(source, 0, 5))
    await pipeline.settle()
    position = PositionRecord(0, 4, EPOCH, stream_time=1002, anchor=anchor_of(source[2]))
    assert owner.batches() == [([b"\x01k0", b"\x01k1", b"\x01k2"], position)]
    assert owner.payloads() == {b"\x01k0": b"v", b"\x01k1": b"v", b"\x01k2": b"v"}
    assert (owner.state.position, owner.state.next_offset) == (position, owner.log.end)
    assert (owner.applied, owner.ingested(), pipeline.needed) == ([4], 3, 5)


@owned()
async def test_no_row_is_readable_before_its_batch_is_acknowledged(owner: Owner, pipeline: Pipeline) -> None:
    owner.world.hold = lambda _request: True
    await pipeline.feed(LaneBatch.of(records(0, 1), 0, 1))
    await owner.world.until(lambda: bool(owner.world.held), "a batch on the wire")
    assert (owner.payloads(), owner.state.applied(SOURCE), owner.applied) == ({}, -1, [])
    owner.world.deliver(owner.world.held[0])
    assert owner.batches()
    assert (owner.payloads(), owner.state.applied(SOURCE)) == ({}, -1)


@owned("count")
async def test_a_batch_is_folded_on_top_of_the_one_in_flight(owner: Owner, pipeline: Pipeline) -> None:
    owner.world.weather = Weather(hop=0.5)
    await pipeline.feed(LaneBatch.of([Record(0, 1, b"a", b"x"), Record(1, 1, b"b", b"x")], 0, 2))
    assert owner.payloads() == {}
    await pipeline.feed(LaneBatch.of([Record(2, 1, b"a", b"x"), Record(3, 1, b"b", None)], 2, 4))
    await pipeline.feed(LaneBatch.of([Record(4, 1, b"a", b"x"), Record(5, 1, b"b", b"x")], 4, 6))
    await pipeline.settle()
    assert owner.payloads() == {b"\x01a": b"3", b"\x01b": b"1"}
    assert owner.spans() == [(0, 1), (2, 3), (4, 5)]


@owned()
async def test_records_that_were_fed_before_are_passed_over(owner: Owner, pipeline: Pipeline) -> None:
    await pipeline.feed(LaneBatch.of(records(0, 3), 0, 3))
    await pipeline.feed(LaneBatch.of(records(0, 3), 0, 3))
    await pipeline.feed(LaneBatch.of(records(1, 6), 1, 6))
    await pipeline.settle()
    assert owner.spans() == [(0, 2), (3, 5)]
    assert owner.ingested() == 6


@owned()
async def test_an_empty_batch_repeats_the_position_and_applies_nothing(owner: Owner, pipeline: Pipeline) -> None:
    source = records(0, 3)
    await pipeline.feed(LaneBatch.of(source, 0, 3))
    await pipeline.feed(LaneBatch.of((), 3, 3))
    await pipeline.settle()
    keys, position = owner.batches()[1]
    assert (keys, position.first, position.last, position.anchor) == ([], 3, 2, anchor_of(source[2]))
    assert (pipeline.needed, owner.state.applied(SOURCE)) == (3, 2)


@owned()
async def test_a_batch_of_which_nothing_becomes_a_row_moves_the_position(owner: Owner, pipeline: Pipeline) -> None:
    await pipeline.feed(LaneBatch.of([Record(0, 7, None, b"v")], 0, 2))
    await pipeline.settle()
    assert owner.batches() == [([], PositionRecord(0, 1, EPOCH, 7, anchor_of(Record(0, 7, None, b"v")), rejected=1))]
    assert owner.skipped("null_key") == 1


@owned()
async def test_the_stream_time_never_goes_back(owner: Owner, pipeline: Pipeline) -> None:
    await pipeline.feed(LaneBatch.of([Record(0, 900, b"a", b"v")], 0, 1))
    await pipeline.feed(LaneBatch.of([Record(1, 300, b"a", b"v")], 1, 2))
    await pipeline.settle()
    assert [position.stream_time for _, position in owner.batches()] == [900, 900]


@owned(limit=500)
async def test_a_batch_that_does_not_fit_is_split_between_records_without_a_hole(
    owner: Owner, pipeline: Pipeline
) -> None:
    await pipeline.feed(LaneBatch.of(records(0, 30), 0, 33))
    await pipeline.settle()
    spans = owner.spans()
    assert len(spans) > 1
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    assert spans[-1][1] == 32
    for keys, position in owner.batches():
        offsets = [offset for offset in range(position.first, position.last + 1) if offset < 30]
        assert keys == [b"\x01k%d" % offset for offset in offsets]
        assert position.anchor is not None
        assert position.anchor.offset == offsets[-1]
    assert len(owner.payloads()) == owner.ingested() == 30


@owned(limit=500)
async def test_fewer_records_are_coalesced_while_they_do_not_fit_and_more_again_later(
    owner: Owner, pipeline: Pipeline
) -> None:
    assert pipeline.limit == LANE_BATCH
    await pipeline.feed(LaneBatch.of(records(0, 60), 0, 60))
    small = pipeline.limit
    assert small <= 60
    # The same key again and again is one row, so as many as one likes fit.
    await pipeline.feed(LaneBatch.of([Record(offset, 1, b"a", b"v") for offset in range(60, 400)], 60, 400))
    assert pipeline.limit == small + 340
    await pipeline.settle()
    assert owner.spans()[-1] == (60, 399)


@owned(limit=500)
async def test_a_record_that_fits_in_no_batch_is_skipped_counted_and_the_rest_goes_on(
    owner: Owner, pipeline: Pipeline
) -> None:
    source = [*records(0, 3), Record(3, 1003, b"big", b"x" * 600), *records(4, 7)]
    with capture_logs() as logs:
        await pipeline.feed(LaneBatch.of(source, 0, 7))
        await pipeline.settle()
    assert owner.skipped("oversized") == 1
    [line] = named(logs, "record skipped")
    assert (line["topic"], line["partition"], line["offset"]) == ("source", 0, 3)
    assert (line["reason"], line["log_level"]) == ("oversized", "warning")
    assert set(owner.payloads()) == {b"\x01k%d" % offset for offset in (0, 1, 2, 4, 5, 6)}
    assert owner.state.applied(SOURCE) == 6


@owned(limit=500)
async def test_a_record_alone_that_does_not_fit_leaves_a_position_with_the_anchor_there_was(
    owner: Owner, pipeline: Pipeline
) -> None:
    source = records(0, 1)
    await pipeline.feed(LaneBatch.of(source, 0, 1))
    await pipeline.feed(LaneBatch.of([Record(1, 1, b"k0", b"x" * 600)], 1, 2))
    await pipeline.settle()
    assert owner.batches()[1] == ([], PositionRecord(1, 1, EPOCH, 1000, anchor_of(source[0]), rejected=1))
    assert owner.payloads() == {b"\x01k0": b"v"}, "the row stays what it was"
    assert (owner.skipped("oversized"), pipeline.needed) == (1, 2)


@owned()
async def test_skips_are_logged_up_to_a_number_and_summed_up_beyond_it(owner: Owner, pipeline: Pipeline) -> None:
    many = BAD_RECORDS_LOGGED + 15
    with capture_logs() as logs:
        await pipeline.feed(LaneBatch.of([Record(offset, 1, None, b"v") for offset in range(many)], 0, many))
    assert [line["offset"] for line in named(logs, "record skipped")] == list(range(BAD_RECORDS_LOGGED))
    [line] = named(logs, "more records skipped")
    assert (line["count"], line["last_offset"], line["topic"], line["partition"]) == (15, many - 1, "source", 0)
    assert pipeline.rejection == f"offset {many - 1} of source[0]: null_key; a row needs a key"
    assert owner.skipped("null_key") == many


@owned()
async def test_as_many_skips_as_are_logged_need_no_sum(owner: Owner, pipeline: Pipeline) -> None:
    with capture_logs() as logs:
        source = [Record(offset, 1, b"!", b"v") for offset in range(BAD_RECORDS_LOGGED)]
        await pipeline.feed(LaneBatch.of(source, 0, BAD_RECORDS_LOGGED))
    assert len(named(logs, "record skipped")) == BAD_RECORDS_LOGGED == owner.skipped("undecodable_key")
    assert not named(logs, "more records skipped")


@owned(limit=500)
async def test_skips_in_a_batch_that_is_split_are_counted_once(owner: Owner, pipeline: Pipeline) -> None:
    source = [Record(offset, 1, b"k%d" % offset, b"!" if offset % 5 == 0 else b"v") for offset in range(60)]
    with capture_logs() as logs:
        await pipeline.feed(LaneBatch.of(source, 0, 60))
        await pipeline.settle()
    assert len(owner.spans()) > 1
    assert owner.skipped("undecodable_value") == 12
    assert [line["offset"] for line in named(logs, "record skipped")] == list(range(0, 50, 5))
    assert sum(line["count"] for line in named(logs, "more records skipped")) <= 2


@owned(limit=500)
async def test_the_first_misplaced_key_stays_in_every_later_position_and_is_logged_once(
    owner: Owner, pipeline: Pipeline
) -> None:
    source = [
        Record(offset, 1, b"~%d" % offset if offset in {1, 40} else b"k%d" % offset, b"v") for offset in range(60)
    ]
    with capture_logs() as logs:
        await pipeline.feed(LaneBatch.of(source, 0, 60))
        await pipeline.feed(LaneBatch.of([Record(60, 1, b"~", b"v")], 60, 61))
        await pipeline.settle()
    assert len(owner.spans()) > 2
    assert {position.misplaced for _, position in owner.batches()} == {Misplaced(SOURCE.partition, 1)}
    assert owner.findings == [1]
    lines = [line for line in logs if "another partition" in line["event"]]
    assert [(line["offset"], line["log_level"]) for line in lines] == [(1, "error")]
    told = "no partitioner that Tablehouse knows puts the"
    assert lines[0]["suggestion"].startswith(told)
    assert told in (owner.doubts.why(owner.changelog.topic, "source") or "")


@owned()
async def test_what_another_worker_found_misplaced_is_told_by_the_next_position(
    owner: Owner, pipeline: Pipeline
) -> None:
    knew_more = [pipeline.knows_more]
    owner.doubts.learn({owner.changelog.topic: Misplaced(5, 77)})
    knew_more.append(pipeline.knows_more)
    await pipeline.feed(LaneBatch.of((), 0, 0))
    await pipeline.settle()
    assert [*knew_more, pipeline.knows_more] == [False, True, False]
    assert [position.misplaced for _, position in owner.batches()] == [Misplaced(5, 77)]
    assert owner.findings == []


async def turns_of_others(owner: Owner, work: Awaitable[None]) -> int:
    """Count how often somebody else has the event loop until the work is done."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = owner.world.outside(other())
    await work
    running.cancel()
    return turns


@owned()
async def test_others_have_a_turn_while_a_large_batch_is_decoded(owner: Owner, pipeline: Pipeline) -> None:
    count = 4 * RECORDS_PER_SLICE
    assert await turns_of_others(owner, pipeline.feed(LaneBatch.of(records(0, count), 0, count))) >= 3
    await pipeline.settle()
    assert len(owner.payloads()) == count
    assert owner.spans() == [(0, count - 1)]


@owned(limit=2 * LANE_BATCH_BYTES)
async def test_others_have_a_turn_while_a_few_large_values_are_decoded(owner: Owner, pipeline: Pipeline) -> None:
    count = LANE_BATCH_BYTES // LARGE_VALUE_BYTES
    source = records(0, count, b"v" * (LARGE_VALUE_BYTES - 10))
    slices = LANE_BATCH_BYTES // BYTES_PER_SLICE
    assert await turns_of_others(owner, pipeline.feed(LaneBatch.of(source, 0, count))) >= slices - 1
    await pipeline.settle()
    assert len(owner.payloads()) == count
    assert owner.spans() == [(0, count - 1)]


def test_others_have_turns_while_one_large_value_is_decoded_and_its_neighbours_are_decoded_with_it() -> None:
    values = value_format(
        TableSpec("t", SourceSpec("source", KeySpec("string"), ValueSpec("json"))), NO_REGISTRY.schemas
    )
    large = b"[" + b"{}," * (LARGE_VALUE_BYTES // 2) + b"{}]"
    source = [Record(0, 1, b"a", b"1"), Record(1, 1, b"b", large), Record(2, 1, b"a", large[:-1]), *records(3, 9, b"2")]

    async def run() -> None:
        owner = Owner("upsert", 8 * LANE_BATCH_BYTES)
        owner.codec = replace(
            owner.codec,
            decode_value=values.decode,
            decode_in_pieces=values.decode_in_pieces,
        )
        pipeline = await owner.claim()
        turns = await turns_of_others(owner, pipeline.feed(LaneBatch.of(source, 0, len(source))))
        await pipeline.settle()
        assert turns >= 2 * len(large) // PIECE_BYTES
        assert owner.skipped("undecodable_value") == 1
        assert set(owner.payloads().values()) == {b"1", b"2", large}
        assert owner.spans() == [(0, len(source) - 1)]
        await pipeline.drop()

    run_virtual(run())


@owned(limit=LANE_BATCH_BYTES)
async def test_a_poll_of_many_changelog_batches_is_cut_before_it_is_folded(owner: Owner, pipeline: Pipeline) -> None:
    fitted: list[bool] = []
    encode_batch = owner.writer.encode

    def encoding(partition: TopicPartition, epoch: Epoch, records: Iterable[tuple[bytes, bytes | None]]) -> Any:
        encoded = encode_batch(partition, epoch, records)
        fitted.append(encoded is not None)
        return encoded

    owner.writer.encode = encoding  # type: ignore[method-assign]
    await pipeline.feed(LaneBatch.of(records(0, 7, b"v" * (LANE_BATCH_BYTES * 2 // 5)), 0, 9))
    await pipeline.settle()
    assert owner.spans() == [(0, 1), (2, 3), (4, 5), (6, 8)]
    assert fitted == [True] * 4


@owned()
async def test_a_batch_that_does_not_stand_right_behind_the_store_is_not_applied(
    owner: Owner, pipeline: Pipeline
) -> None:
    owner.log.append([(b"\x01foreign", b"row")])
    await pipeline.feed(LaneBatch.of(records(0, 1), 0, 1))
    with pytest.raises(NotContiguous) as raised:
        await pipeline.settle()
    assert raised.value.end == owner.log.end
    assert (owner.payloads(), owner.state.applied(SOURCE), owner.state.next_offset) == ({}, -1, 1)


@owned()
async def test_an_append_under_an_older_epoch_is_fenced_and_not_applied(owner: Owner, pipeline: Pipeline) -> None:
    claim = Claim(Epoch(0, 2), b"other", 2, "other", {}, b"log id")
    await SimulatedWriter(owner.world).claim(owner.changelog, Epoch(0, 2), CLAIM_KEY, encode(claim))
    await pipeline.feed(LaneBatch.of(records(0, 1), 0, 1))
    with pytest.raises(Fenced):
        await pipeline.settle()
    assert owner.payloads() == {}
    assert owner.log.end == 2


@owned()
async def test_an_append_that_is_not_acknowledged_is_not_applied(owner: Owner, pipeline: Pipeline) -> None:
    owner.world.hold = lambda _request: True
    await pipeline.feed(LaneBatch.of(records(0, 1), 0, 1))
    with pytest.raises(OutcomeUnknown):
        await pipeline.feed(LaneBatch.of(records(1, 2), 1, 2))
    assert (owner.payloads(), owner.applied, len(owner.world.held)) == ({}, [], 1)


@owned()
async def test_a_store_that_fails_is_the_owners_to_hear_of(owner: Owner, pipeline: Pipeline) -> None:
    owner.store.close()
    await pipeline.feed(LaneBatch.of(records(0, 1), 0, 1))
    with pytest.raises(StoreClosed):
        await pipeline.settle()
    assert (owner.state.applied(SOURCE), owner.applied) == (-1, [])


@owned()
async def test_rest_lets_the_batch_in_flight_be_applied(owner: Owner, pipeline: Pipeline) -> None:
    await pipeline.rest(10)
    await pipeline.feed(LaneBatch.of(records(0, 2), 0, 2))
    await pipeline.rest(10)
    assert owner.state.applied(SOURCE) == 1


@owned()
async def test_rest_is_over_when_patience_is_and_drop_forgets_what_is_in_flight(
    owner: Owner, pipeline: Pipeline
) -> None:
    owner.world.hold = lambda _request: True
    await pipeline.feed(LaneBatch.of(records(0, 2), 0, 2))
    began = asyncio.get_running_loop().time()
    await pipeline.rest(0.5)
    assert asyncio.get_running_loop().time() == began + 0.5
    await pipeline.drop()
    assert (owner.payloads(), owner.applied) == ({}, [])


@owned()
async def test_drop_does_not_raise_what_the_flight_ended_with(owner: Owner, pipeline: Pipeline) -> None:
    owner.log.append([(b"\x01foreign", b"row")])
    await pipeline.feed(LaneBatch.of(records(0, 1), 0, 1))
    await pipeline.rest(10)
    await pipeline.drop()
    await pipeline.drop()
    assert owner.state.applied(SOURCE) == -1


@owned(on_error="dead_letter")
async def test_dead_letters_are_written_before_the_position_passes_them(owner: Owner, pipeline: Pipeline) -> None:
    owner.world.takes["letters.asked"] = 1.0
    source = [*records(0, 2), Record(2, 1, None, b"v"), *records(3, 5)]
    feeding = asyncio.ensure_future(pipeline.feed(LaneBatch.of(source, 0, 5)))
    await owner.world.until(lambda: owner.world.under_way["letters.asked"] == 1, "letters are on their way")
    assert (owner.batches(), owner.world.sent[1:], owner.world.letters) == ([], [], [])
    await feeding
    assert owner.world.letters == [("upsert", SOURCE, 2, "null_key")]
    await pipeline.settle()
    assert (owner.spans(), owner.state.applied(SOURCE)) == ([(0, 4)], 4)
    assert (owner.lettered("null_key"), owner.skipped("null_key")) == (1, 0)


@owned(on_error="dead_letter")
async def test_a_batch_before_the_bad_one_is_applied_while_letters_are_on_their_way(
    owner: Owner, pipeline: Pipeline
) -> None:
    await pipeline.feed(LaneBatch.of(records(0, 2), 0, 2))
    owner.world.takes["letters.asked"] = 100.0
    feeding = asyncio.ensure_future(pipeline.feed(LaneBatch.of([Record(2, 1, b"!", b"v")], 2, 3)))
    await owner.world.until(lambda: owner.applied == [1], "the batch before is applied")
    assert owner.world.letters == []
    feeding.cancel()
    await asyncio.wait({feeding})
    assert owner.spans() == [(0, 1)]


@owned(on_error="dead_letter")
async def test_letters_that_are_not_written_move_nothing_and_are_counted(owner: Owner, pipeline: Pipeline) -> None:
    owner.world.letters_away = True
    with capture_logs() as logs, pytest.raises(LettersUndelivered):
        await pipeline.feed(LaneBatch.of([Record(0, 1, None, b"v")], 0, 1))
    assert (owner.batches(), owner.applied, owner.lettered("null_key")) == ([], [], 0)
    assert named(logs, "record dead-lettered") == []
    labels = {"table": "upsert"}
    assert owner.metrics.registry.get_sample_value("tablehouse_dead_letter_errors_total", labels) == 1


@owned(limit=500, on_error="dead_letter")
async def test_letters_of_a_batch_that_is_split_are_written_once(owner: Owner, pipeline: Pipeline) -> None:
    source = [Record(offset, 1, b"k%d" % offset, b"!" if offset % 5 == 0 else b"v") for offset in range(60)]
    source.append(Record(60, 1, b"big", b"x" * 600))
    with capture_logs() as logs:
        await pipeline.feed(LaneBatch.of(source, 0, 61))
        await pipeline.settle()
    assert len(owner.spans()) > 1
    assert [offset for _, _, offset, _ in owner.world.letters] == list(range(0, 61, 5))
    assert owner.world.letters[-1][3] == "oversized"
    assert [line["offset"] for line in named(logs, "record dead-lettered")] == list(range(0, 50, 5))
    assert owner.batches()[-1][1].rejected == 13
    assert (owner.lettered("undecodable_value"), owner.lettered("oversized")) == (12, 1)


@owned(on_error="stop")
async def test_a_stop_applies_everything_before_the_record_and_nothing_of_it_or_behind(
    owner: Owner, pipeline: Pipeline
) -> None:
    source = [*records(0, 3), Record(5, 1, b"!", b"v"), *records(6, 9), Record(9, 1, None, b"v")]
    for _ in range(2):
        with pytest.raises(RecordRefused) as raised:
            await pipeline.feed(LaneBatch.of(source, 0, 10))
        assert raised.value.bad == (source[3], "undecodable_key", "a bad key")
        assert str(raised.value) == "offset 5 of source[0] cannot become a row: undecodable_key, a bad key"
        assert (owner.spans(), owner.state.applied(SOURCE), pipeline.needed) == ([(0, 4)], 4, 5)
        assert set(owner.payloads()) == {b"\x01k0", b"\x01k1", b"\x01k2"}
    assert (owner.skipped("undecodable_key"), owner.lettered("undecodable_key")) == (0, 0)


@owned(limit=500, on_error="stop")
async def test_a_stop_at_a_record_that_fits_in_no_batch_applies_everything_before_it(
    owner: Owner, pipeline: Pipeline
) -> None:
    source = [*records(0, 20), Record(20, 1, b"big", b"x" * 600), *records(21, 30)]
    with pytest.raises(RecordRefused, match=r"offset 20 of .* oversized"):
        await pipeline.feed(LaneBatch.of(source, 0, 30))
    assert owner.state.applied(SOURCE) == 19
    assert set(owner.payloads()) == {b"\x01k%d" % offset for offset in range(20)}
    assert owner.log.end == owner.state.next_offset
