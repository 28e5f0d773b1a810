"""The rows between two keys: of a copy, across a hop, and over all partitions of a table."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.catalog.spec import Catalog, KeySpec, PartitionerName, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import (
    DeadlineExceeded,
    MisplacedKeys,
    NotOwner,
    OwnerUnreachable,
    PartitionRestoring,
    PositionNotReached,
    RequestError,
    TooStale,
)
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, HostInfo, ReadMode, Role, TaskStatus
from tablehouse.routing import counting, here, ranges
from tablehouse.routing.asking import Asker
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.counting import Counted, RowCounts
from tablehouse.routing.here import Here
from tablehouse.routing.ports import Answers, ConditionalWrite, Peer, Terms
from tablehouse.routing.ranges import Ranges
from tablehouse.routing.tables import RoutedTable, routed_tables
from tablehouse.stores.rocksdb import RocksTaskStore
from tablehouse.stores.rows import DELETED, LAYOUT_VERSION, ROW_PREFIX, Row, RowLayoutError, pack_head
from tablehouse.tasks.counting import CountRange, CountResult
from tablehouse.tasks.ranges import KeyedRow, Range, RangeResult
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.slice_sizes import BYTES_PER_SLICE, FIRST_ROWS, ROWS_PER_SLICE
from tablehouse.tasks.task import Task
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns
from tests.support.cluster_fakes import CATALOG, FakeTables, Placed, snapshot
from tests.support.http_workers import Worker, share, two_workers
from tests.support.link_peers import link_peer
from tests.support.positions import at
from tests.support.schemas import NO_REGISTRY
from tests.support.stored_tasks import HeldLease, active_task, opened_store

TABLES = routed_tables(CATALOG, "g", NO_REGISTRY)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RocksTaskStore]:
    with opened_store(tmp_path) as opened:
        yield opened


def packed(payload: bytes, flags: int = 0) -> bytes:
    return pack_head(LAYOUT_VERSION, flags, 1_000, 7) + payload


async def fill(store: RocksTaskStore, rows: Mapping[bytes, bytes]) -> None:
    await store.write([(ROW_PREFIX + key, packed(payload)) for key, payload in rows.items()], b"checkpoint")


def all_of(question: Range, task: Task, reader: Reader) -> Iterator[RangeResult]:
    """Ask until nothing is left."""
    rest: Range | None = question
    while rest is not None:
        result = rest.answer(task, reader, DEFAULT_CONSISTENCY)
        yield result
        rest = result.rest


KEYS = [b"", b"\0", b"a", b"a\0", b"b", b"\xff", b"\xff\xff", *(b"k%03d" % number for number in range(600))]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 50, 10_000])
async def test_a_copy_gives_the_rows_of_a_range_in_slices_and_says_what_is_left(
    store: RocksTaskStore, limit: int, *, reverse: bool
) -> None:
    await fill(store, {key: b"row " + key for key in KEYS})
    await store.write([(b"\x02other", b"x")], b"checkpoint")
    bounds = (b"", b"a", b"a\0", b"aa", b"k", b"k300", b"z", b"\xff", b"\xff\xff\xff")
    for start, end in itertools.product(bounds, (*bounds, None)):
        reader = Reader(HeldLease(), 60.0)
        results = list(all_of(Range(start, end, reverse=reverse, limit=limit), active_task(store), reader))
        found = [row.stored_key for result in results for row in result.rows]
        within = [key for key in sorted(KEYS, reverse=reverse) if key >= start and (end is None or key < end)]
        assert found == within[:limit]
        assert all(len(result.rows) <= ROWS_PER_SLICE for result in results)
        assert len(results[0].rows) <= FIRST_ROWS


async def test_a_row_of_a_range_has_its_payload_its_timestamp_its_offset_and_whether_it_is_a_mark(
    store: RocksTaskStore,
) -> None:
    await store.write([(ROW_PREFIX + b"a", packed(b"1")), (ROW_PREFIX + b"b", packed(b"", DELETED))], b"checkpoint")
    result = Range(limit=9).answer(active_task(store), Reader(HeldLease(), 60.0), DEFAULT_CONSISTENCY)
    assert result.rows == [KeyedRow(b"a", b"1", 1_000, 7), KeyedRow(b"b", b"", 1_000, 7, deleted=True)]
    assert result.rest is None
    assert (result.freshness.partition, result.freshness.position, result.freshness.role) == (2, at(2, 41), Role.ACTIVE)


async def test_a_slice_of_large_rows_ends_with_its_bytes_and_the_next_one_has_fewer_rows(
    store: RocksTaskStore,
) -> None:
    size = BYTES_PER_SLICE // 4
    await fill(store, {b"k%03d" % number: b"x" * size for number in range(40)})
    results = list(all_of(Range(limit=100), active_task(store), Reader(HeldLease(), 60.0)))
    assert [row.stored_key for result in results for row in result.rows] == [b"k%03d" % n for n in range(40)]
    assert [len(result.rows) for result in results] == [*[4] * 10, 0]
    await fill(store, {b"k%03d" % number: b"x" * (2 * BYTES_PER_SLICE) for number in range(4)})
    results = list(all_of(Range(limit=4), active_task(store), Reader(HeldLease(), 60.0)))
    assert [len(result.rows) for result in results] == [1, 1, 1, 1]


async def test_marks_of_deleted_keys_do_not_count_as_rows_of_a_range(store: RocksTaskStore) -> None:
    rows = [(b"a", DELETED), (b"b", 0), (b"c", DELETED), (b"d", DELETED), (b"e", 0), (b"f", 0)]
    await store.write([(ROW_PREFIX + key, packed(b"", flags)) for key, flags in rows], b"checkpoint")
    results = list(all_of(Range(limit=2), active_task(store), Reader(HeldLease(), 60.0)))
    assert [row.stored_key for result in results for row in result.rows] == [b"a", b"b", b"c", b"d", b"e"]


async def test_a_copy_counts_the_rows_of_a_range_in_slices(store: RocksTaskStore) -> None:
    await fill(store, {key: b"row " + key for key in KEYS})
    await store.write([(ROW_PREFIX + b"k000", packed(b"", DELETED)), (b"\x02other", b"x")], b"checkpoint")
    live = [key for key in KEYS if key != b"k000"]
    bounds = (b"", b"a", b"a\0", b"k", b"k300", b"\xff\xff\xff")
    for start, end in itertools.product(bounds, (*bounds, None)):
        reader, task = Reader(HeldLease(), 60.0), active_task(store)
        count, slices = 0, 0
        rest: CountRange | None = CountRange(start, end)
        while rest is not None:
            result = rest.answer(task, reader, DEFAULT_CONSISTENCY)
            assert result.count <= ROWS_PER_SLICE
            count, slices, rest = count + result.count, slices + 1, result.rest
        assert count == sum(start <= key and (end is None or key < end) for key in live)
        assert (result.freshness.partition, result.says_absent) == (2, True)
        assert slices >= count // ROWS_PER_SLICE


async def test_a_range_without_payloads_has_the_keys_alone(store: RocksTaskStore) -> None:
    await fill(store, {b"a": b"x" * 100, b"b": b"y"})
    result = Range(limit=1, keys_only=True).answer(active_task(store), Reader(HeldLease(), 60.0), DEFAULT_CONSISTENCY)
    assert result.rows == [KeyedRow(b"a", b"", 1_000, 7)]
    assert Range(limit=9, keys_only=True).after(b"a", 8) == Range(b"a\0", None, limit=8, keys_only=True)


async def test_a_range_over_bytes_that_are_no_row_says_so(store: RocksTaskStore) -> None:
    await store.write([(ROW_PREFIX + b"a", b"\x09nothing known")], b"checkpoint")
    with pytest.raises(RowLayoutError):
        Range().answer(active_task(store), Reader(HeldLease(), 60.0), DEFAULT_CONSISTENCY)


# Across a hop


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[tuple[Worker, Worker]]:
    async with two_workers() as both:
        yield both


def terms(wait: float = 0.0, digest: str = TABLES["planes"].digest) -> Terms:
    return Terms(wait, 5.0, digest, 4, 7, "r")


@asynccontextmanager
async def asking(worker: Worker) -> AsyncIterator[Callable[..., Any]]:
    """Give what asks a worker about its partition 2 of the planes."""
    async with link_peer() as peer:
        at = peer.at(HostInfo(worker.name, 1, worker.internal))

        async def ask(
            question: Range, asked: Consistency = DEFAULT_CONSISTENCY, on: Terms | None = None
        ) -> RangeResult:
            return (await at.answer("planes", 2, question, asked, on or terms())).result

        yield ask


async def test_a_range_and_its_rows_cross_the_hop_exactly(workers: tuple[Worker, Worker]) -> None:
    keys = [b"", b"\0", b"\xff\xfe", b"a/b", bytes(range(256))]
    for key in keys:
        workers[1].local.rows["planes", 2, key] = Row(b"\x00" + key, -5, 41, deleted=key == b"a/b")
    async with asking(workers[1]) as ask:
        for reverse in (False, True):
            found: list[KeyedRow] = []
            rest: Range | None = Range(b"", b"\xff\xff", reverse=reverse, limit=9)
            while rest is not None:
                result = await ask(rest)
                assert (result.freshness.partition, result.freshness.position) == (2, at(2, 99))
                found += result.rows
                rest = result.rest
            assert found == [
                KeyedRow(key, b"\x00" + key, -5, 41, key == b"a/b") for key in sorted(keys, reverse=reverse)
            ]


@pytest.mark.parametrize(
    "error", [PartitionRestoring("40 to go", remaining=40), MisplacedKeys("elsewhere"), TooStale("9 s behind")]
)
async def test_what_the_owner_refuses_reaches_the_one_who_asks(
    workers: tuple[Worker, Worker], error: RequestError
) -> None:
    workers[1].local.errors[2] = error
    async with asking(workers[1]) as ask:
        with pytest.raises(type(error)) as raised:
            await ask(Range(limit=3))
    assert raised.value.detail == error.detail
    assert raised.value.details.items() >= error.details.items()


async def test_what_a_caller_asks_of_an_answer_crosses_and_a_position_is_waited_for(
    workers: tuple[Worker, Worker],
) -> None:
    owner, wanted = workers[1].local, Consistency(ReadMode.ANY, 500, 7, at(2, 120))
    async with asking(workers[1]) as ask:
        with pytest.raises(PositionNotReached):
            await ask(Range(), wanted)
        assert owner.waits == []
        waiting = asyncio.ensure_future(ask(Range(), wanted, terms(wait=4.0)))
        await owner.waiting.wait()
        owner.advance(2, 120)
        assert (await waiting).freshness.position == at(2, 120)
    assert set(owner.asked_for) == {wanted}


async def test_a_worker_that_does_not_hold_the_partition_or_means_another_table_is_not_the_owner(
    workers: tuple[Worker, Worker],
) -> None:
    async with asking(workers[0]) as ask:
        with pytest.raises(NotOwner, match="generation 7 here, 7 there"):
            await ask(Range())
    async with asking(workers[1]) as ask:
        with pytest.raises(NotOwner, match="definition"):
            await ask(Range(), DEFAULT_CONSISTENCY, terms(digest="0" * 32))
    assert workers[1].local.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 26\r\n\r\n" + b'{"code":"route_not_found"}',
        b"HTTP/1.1 200 OK\r\nTablehouse-Internal-Version: 1\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 204 No Content\r\nTablehouse-Internal-Version: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_worker_of_before_and_any_other_server_count_as_unreachable(answer: bytes) -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    host = HostInfo("m", 1, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        async with link_peer() as peer:
            with pytest.raises(OwnerUnreachable):
                await peer.at(host).answer("planes", 2, Range(), DEFAULT_CONSISTENCY, terms())
    finally:
        server.close()


# Over all partitions


class Reading:
    """Ranges as worker a of a cluster reads them, some of its partitions here and some of another worker."""

    def __init__(
        self, view: ClusterView, local: FakeTables, peer: Peer, clock: Callable[[], float] | None = None
    ) -> None:
        clock = self._clock = clock or asyncio.get_running_loop().time
        turns, self.metrics = Turns(), Metrics("0")
        here = Here(local, turns, clock, "a")
        asker = Asker(view=view, here=here, peer=peer, worker_id="a", clock=clock, metrics=self.metrics)
        self.ranges = Ranges(TABLES, asker, clock=clock, metrics=self.metrics, turns=turns)
        self.counts = RowCounts(TABLES, asker, self.ranges, clock=clock, metrics=self.metrics)

    def scan(self, bounds: Range, asked: Consistency = DEFAULT_CONSISTENCY, *, partial: bool = False) -> ranges.Scan:
        """Begin to read a range with five seconds left."""
        deadline = self._clock() + 5.0
        return self.ranges.scan("planes", bounds, deadline=deadline, request_id="r", consistency=asked, partial=partial)

    async def read(self, bounds: Range, asked: Consistency = DEFAULT_CONSISTENCY) -> list[KeyedRow]:
        """Read a range to its end."""
        return [row async for part in self.scan(bounds, asked).parts() for row in part.rows]

    async def count(self, start: bytes = b"", end: bytes | None = None, *, partial: bool = False) -> Counted:
        """Count the rows of a range."""
        deadline = self._clock() + 5.0
        return await self.counts.count(
            "planes",
            CountRange(start, end),
            deadline=deadline,
            request_id="r",
            consistency=DEFAULT_CONSISTENCY,
            partial=partial,
        )


@asynccontextmanager
async def reading(workers: tuple[Worker, Worker]) -> AsyncIterator[Reading]:
    async with link_peer() as peer:
        yield Reading(workers[0].view, workers[0].local, peer)


def put(workers: tuple[Worker, Worker], partition: int, key: bytes, row: Row) -> None:
    workers[partition // 2].local.rows["planes", partition, key] = row


class Beside:
    """Another worker in the same process."""

    def __init__(self, local: FakeTables) -> None:
        self._answers = Here(local, Turns(), asyncio.get_running_loop().time, "b")

    def at(self, host: HostInfo) -> Answers:
        """There is one."""
        assert host.worker_id == "b"
        return self._answers

    async def write(self, host: HostInfo, write: ConditionalWrite, terms: Terms) -> int:
        """Nothing is written here."""
        raise NotImplementedError(host, write, terms)

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109
        """Nothing is looked at here."""
        raise NotImplementedError(host, timeout)


SOME_KEYS = [b"", b"\0", b"a", b"a\0", b"b", b"c", b"\xff"]
CONTENT = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([b"", b"\0", b"a", b"a\0", b"b", b"c", b"\xff"]),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=24,
    unique_by=lambda row: row[:2],
)
KEY = st.sampled_from([b"", b"a", b"aa", b"c", b"\xff\xff"])


@given(CONTENT, KEY, st.one_of(st.none(), KEY), st.booleans(), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_a_range_has_the_newest_row_of_each_key_over_all_partitions(
    content: list[tuple[int, bytes, int, bool]],
    start: bytes,
    end: bytes | None,
    reverse: bool,  # noqa: FBT001 - hypothesis passes it by position
    limit: int,
) -> None:
    newest: dict[bytes, tuple[int, bool, int]] = {}
    for partition, key, timestamp, deleted in content:
        if key >= start and (end is None or key < end):
            newest[key] = max(newest.get(key, (-1, False, -4)), (timestamp, not deleted, -partition))
    expected = [
        (key, b"%d" % -place) for key, (_, is_there, place) in sorted(newest.items(), reverse=reverse) if is_there
    ]

    async def scenario() -> None:
        a, b = FakeTables(held={0, 1}), FakeTables(held={2, 3})
        for partition, key, timestamp, deleted in content:
            local = (a, b)[partition // 2]
            payload = b"" if deleted else b"%d" % partition
            local.rows["planes", partition, key] = Row(payload, timestamp, 1, deleted=deleted)
        view = ClusterView()
        view.swap(snapshot(Placed("a", "", {"planes-topic": range(2)}), Placed("b", "", {"planes-topic": range(2, 4)})))
        read = Reading(view, a, Beside(b))
        scan = read.scan(Range(start, end, reverse=reverse, limit=limit))
        found: list[tuple[bytes, bytes]] = []
        async for part in scan.parts():
            found += [(row.stored_key, row.payload) for row in part.rows]
            if part.reached is not None:
                # Whoever goes on from here finds the rest.
                after = Range(start, end, reverse=reverse, limit=100).after(part.reached, 100)
                rest = [(row.stored_key, row.payload) for row in await read.read(after)]
                assert [*found, *rest] == expected
        assert found == expected[:limit]
        assert set(scan.partitions) == {0, 1, 2, 3}

    asyncio.run(scenario())


async def test_the_end_of_a_range_is_known_where_its_last_row_is_the_last_one_wanted(
    workers: tuple[Worker, Worker],
) -> None:
    for number in range(20):
        put(workers, number % 4, b"k%02d" % number, Row(b"x", 1, 1))
    async with reading(workers) as read:
        for reverse, limit, reached in ((False, 7, b"k06"), (True, 7, b"k13"), (False, 19, b"k18"), (False, 20, None)):
            parts = [part async for part in read.scan(Range(reverse=reverse, limit=limit)).parts()]
            assert sum(len(part.rows) for part in parts) == limit
            assert parts[-1].reached == reached


async def test_a_scan_holds_few_rows_however_many_there_are(workers: tuple[Worker, Worker]) -> None:
    for number in range(400):
        put(workers, number % 4, b"k%03d" % number, Row(b"x" * 50_000, 1, 1))
    async with reading(workers) as read:
        scan = read.scan(Range(limit=ranges.ALL_ROWS))
        given = 0
        async for part in scan.parts():
            given += len(part.rows)
            assert (scan.rows_read - given) * 50_000 <= 2 * ranges.BYTES_AHEAD
        assert given == scan.rows_read == 400
        counted = read.metrics.registry.get_sample_value("tablehouse_scanned_rows_total", {"table": "planes"})
        assert counted == 400


async def test_the_first_partitions_tell_how_many_rows_the_others_are_asked_for(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "AT_ONCE", 2)
    # Three rows are the first that fill a slice of a copy.
    payload = b"x" * 100_000
    monkeypatch.setattr(ranges, "BYTES_AHEAD", 4 * len(payload))
    for number in range(40):
        put(workers, number % 4, b"k%02d" % number, Row(payload, 1, 1))
    async with reading(workers) as read:
        scan = read.scan(Range(limit=ranges.ALL_ROWS))
        await anext(scan.parts())
        # As many as a copy gives of the first two, and one of each of the others.
        assert scan.rows_read == 3 + 3 + 1 + 1


async def test_a_scan_without_payloads_has_all_keys(workers: tuple[Worker, Worker]) -> None:
    for number in range(9):
        put(workers, number % 4, b"k%d" % number, Row(b"x", 1, 1))
    async with reading(workers) as read:
        rows = await read.read(Range(limit=99, keys_only=True))
        assert [(row.stored_key, row.payload) for row in rows] == [(b"k%d" % number, b"") for number in range(9)]


async def test_a_scan_that_may_goes_on_without_a_partition_and_names_it(workers: tuple[Worker, Worker]) -> None:
    for number in range(40):
        put(workers, number % 4, b"k%02d" % number, Row(b"x", 1, 1))
    b = workers[1].local
    original = b.read_range

    def once(*arguments: Any) -> RangeResult:
        result = original(*arguments)
        b.errors[3] = PartitionRestoring("not any more")
        return result

    async with reading(workers) as read:
        b.errors[2] = PartitionRestoring("40 to go")
        scan = read.scan(Range(limit=99), partial=True)
        keys = [row.stored_key async for part in scan.parts() for row in part.rows]
        assert keys == [b"k%02d" % number for number in range(40) if number % 4 != 2]
        assert {number: error.detail for number, error in scan.missing.items()} == {2: "40 to go"}
        b.errors.clear()
        b.read_range = once  # type: ignore[method-assign,assignment]
        scan = read.scan(Range(limit=99), partial=True)
        found = {row.stored_key async for part in scan.parts() for row in part.rows}
        assert set(scan.missing) == {3}
        assert {b"k%02d" % number for number in range(40) if number % 4 != 3} <= found


class BesideSilent(Beside):
    """Another worker b in the same process, and a worker `silent` for whose answers time passes in vain."""

    def __init__(self, local: FakeTables) -> None:
        super().__init__(local)
        self.now = 0.0

    def at(self, host: HostInfo) -> Answers:
        """There are two."""
        return cast("Answers", self) if host.worker_id == "silent" else super().at(host)

    async def answer(self, table: str, partition: int, question: object, asked: Consistency, terms: Terms) -> object:
        """Let all the time pass."""
        self.now += terms.timeout
        raise OwnerUnreachable(f"silent about partition {partition} of {table}", question=question, asked=asked)


async def test_a_silent_worker_leaves_time_for_the_partitions_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "AT_ONCE", 1)
    monkeypatch.setattr(counting, "AT_ONCE", 1)
    b, view = FakeTables(held={1, 2, 3}), ClusterView()
    for partition in range(1, 4):
        b.rows["planes", partition, b"k%d" % partition] = Row(b"x", 1, 1)
    view.swap(snapshot(Placed("silent", "", {"planes-topic": [0]}), Placed("b", "", {"planes-topic": range(1, 4)})))
    peer = BesideSilent(b)
    read = Reading(view, FakeTables(), peer, lambda: peer.now)
    scan = read.scan(Range(limit=9), partial=True)
    assert [row.stored_key async for part in scan.parts() for row in part.rows] == [b"k1", b"k2", b"k3"]
    assert set(scan.missing) == {0}
    counted = await read.count(partial=True)
    assert (counted.count, set(counted.missing)) == (3, {0})


async def test_rows_are_counted_where_they_are(workers: tuple[Worker, Worker]) -> None:
    for number in range(40):
        put(workers, number % 4, b"k%02d" % number, Row(b"x", 1, 1))
    put(workers, 1, b"gone", Row(b"", 1, 1, deleted=True))
    async with reading(workers) as read:
        counted = await read.count()
        assert counted.count == 40
        assert {number: answer.served_by for number, answer in counted.partitions.items()} == {
            0: "a",
            1: "a",
            2: "b",
            3: "b",
        }
        # One hop for each partition, however many slices of work it takes there.
        assert read.metrics.registry.get_sample_value("tablehouse_forward_requests_total", {"outcome": "ok"}) == 2
        assert (await read.count(b"k10", b"k20")).count == 10
        assert (await read.count(b"k10\0", b"k10\0")).count == 0
        workers[1].local.errors[3] = PartitionRestoring("40 to go")
        with pytest.raises(PartitionRestoring):
            await read.count()
        counted = await read.count(partial=True)
        assert (counted.count, set(counted.missing), set(counted.partitions)) == (30, {3}, {0, 1, 2})


async def test_a_range_with_more_rows_than_can_be_counted_in_time_says_so(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        put(workers, 0, b"k%d" % number, Row(b"x", 1, 1))
    async with reading(workers) as read:
        monkeypatch.setattr(read.counts, "_clock", lambda: asyncio.get_running_loop().time() + 6.0)
        with pytest.raises(DeadlineExceeded, match="count parts of it"):
            await read.count()


async def test_no_worker_is_asked_to_count_that_could_hardly_answer_in_time(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    share(workers, {"a": [0], "b": [1, 2, 3]})
    a, passed = workers[0].local, 0.0

    def slow(table: str, partition: int, asked: CountRange, consistency: Consistency) -> CountResult:
        nonlocal passed
        passed += 2.4
        return CountResult(1, a.read(table, partition, b"", consistency).freshness, asked)

    a.count_range = slow  # type: ignore[method-assign]
    monkeypatch.setattr(here, "SECONDS_PER_QUESTION", 0.0)
    async with reading(workers) as read:
        begun = asyncio.get_running_loop().time()
        monkeypatch.setattr(read.counts, "_clock", lambda: begun + passed)
        with pytest.raises(DeadlineExceeded, match="count parts of it"):
            await read.count()
    assert len(a.asked) == 2


async def test_a_worker_answers_what_it_has_counted_in_half_of_its_time() -> None:
    local, now = FakeTables(), 0.0

    def slow(table: str, partition: int, asked: CountRange, consistency: Consistency) -> CountResult:
        nonlocal now
        now += 0.01
        return CountResult(1, local.read(table, partition, b"", consistency).freshness, asked)

    local.count_range = slow  # type: ignore[method-assign]
    worker = Here(local, Turns(), lambda: now, "a")
    for timeout, seconds in ((0.1, 0.05), (60.0, 0.25)):
        now = 0.0
        answered = await worker.answer(
            "planes", 0, CountRange(), DEFAULT_CONSISTENCY, terms()._replace(timeout=timeout)
        )
        assert answered.result.rest is not None
        assert seconds <= answered.result.count / 100 <= seconds + 0.02


@pytest.mark.parametrize(
    ("key", "partitioner", "expected"),
    [
        (KeySpec("string"), "murmur2", True),
        (KeySpec("bytes"), "crc32", True),
        (KeySpec("long"), "fnv1a", True),
        (KeySpec("string"), "any", False),
        (KeySpec("uuid"), "murmur2", False),
        (KeySpec("json", ("a", "b")), "murmur2", False),
        (KeySpec("avro"), "murmur2", False),
    ],
)
def test_a_key_of_several_forms_or_places_may_have_rows_in_several_partitions(
    key: KeySpec, partitioner: PartitionerName, *, expected: bool
) -> None:
    spec = TableSpec("t", SourceSpec("t", key, ValueSpec("json"), partitioner=partitioner))
    [table] = routed_tables(Catalog({"t": spec}), "g", NO_REGISTRY).values()
    assert table.has_keys_once is expected


async def test_a_key_with_rows_in_several_partitions_counts_once(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RoutedTable, "has_keys_once", False)
    put(workers, 0, b"both", Row(b"x", 1, 1))
    put(workers, 3, b"both", Row(b"y", 2, 1))
    put(workers, 1, b"gone", Row(b"x", 1, 1))
    put(workers, 2, b"gone", Row(b"", 2, 1, deleted=True))
    async with reading(workers) as read:
        assert (await read.count()).count == 1


async def test_one_partition_that_cannot_answer_is_an_error_and_a_standby_answers_for_it_if_that_is_asked_for(
    workers: tuple[Worker, Worker],
) -> None:
    a, b = workers
    share(workers, {"a": [0, 1], "b": [2, 3]}, standbys={"a": [2, 3]})
    put(workers, 0, b"k0", Row(b"0", 1, 1))
    a.local.rows["planes", 3, b"k3"] = Row(b"3", 1, 1)
    b.local.errors[3] = PartitionRestoring("40 to go")
    a.local.held = {0, 1}
    async with reading(workers) as read:
        with pytest.raises(PartitionRestoring) as raised:
            await read.read(Range(limit=9))
        assert raised.value.details["partition"] == 3
        assert [attempt["host"] for attempt in raised.value.details["tried"]] == ["b", "a", "a"]
        a.local.held, a.local.role = {0, 1, 2, 3}, Role.STANDBY
        with pytest.raises(PartitionRestoring):
            await read.read(Range(limit=9))
        scan = read.scan(Range(limit=9), Consistency(ReadMode.ANY))
        assert [row.stored_key async for part in scan.parts() for row in part.rows] == [b"k0", b"k3"]
        assert scan.partitions[3].served_by == "a"
        assert scan.partitions[3].freshness.role is Role.STANDBY


async def test_an_active_that_is_suspended_cannot_say_what_lies_between_its_rows(
    workers: tuple[Worker, Worker],
) -> None:
    workers[1].local.role = Role.SUSPENDED
    async with reading(workers) as read:
        with pytest.raises(PartitionRestoring, match="suspended copy cannot say"):
            await read.read(Range(limit=9))
