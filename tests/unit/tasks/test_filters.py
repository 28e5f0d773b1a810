"""Questions with a condition or with names of members, of a real store."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tablehouse.catalog.spec import KeySpec, SourceSpec, TableSpec, ValueFormatName, ValueSpec
from tablehouse.errors import ExpressionFailed, InvalidExpression
from tablehouse.model import DEFAULT_CONSISTENCY
from tablehouse.stores.rocksdb import RocksTaskStore
from tablehouse.stores.rows import DELETED, LAYOUT_VERSION, ROW_PREFIX, pack_head
from tablehouse.tasks.counting import CountRange
from tablehouse.tasks.definitions import codec_of
from tablehouse.tasks.filters import CONDITIONS_KEPT, condition, prepared
from tablehouse.tasks.projection import projection
from tablehouse.tasks.ranges import Range, RangeResult
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.slice_sizes import BYTES_PER_SLICE, FIRST_ROWS, ROWS_PER_SLICE
from tablehouse.tasks.task import Task
from tablehouse.turns import Turns
from tests.support.schemas import NO_REGISTRY
from tests.support.stored_tasks import HeldLease, active_task, opened_store

KEYS = [b"k%03d" % number for number in range(700)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RocksTaskStore]:
    with opened_store(tmp_path) as opened:
        yield opened


def reader(clock: Callable[[], float] = lambda: 0.0) -> Reader:
    """Return a reader whose clock stands still, so that no slice ends because of its time."""
    return Reader(HeldLease(), 60.0, clock)


async def fill(store: RocksTaskStore) -> None:
    """Write all keys with their number as `n`; every tenth is a mark of a deleted key."""
    rows = []
    for number, key in enumerate(KEYS):
        is_mark = number % 10 == 0
        head = pack_head(LAYOUT_VERSION, DELETED * is_mark, 1_000 + number, 7)
        rows.append((ROW_PREFIX + key, head if is_mark else head + b'{"n": %d, "s": "x"}' % number))
    await store.write(rows, b"checkpoint")


def results_of(question: Range, task: Task, by: Reader) -> list[RangeResult]:
    """Ask until nothing is left."""
    results: list[RangeResult] = []
    rest: Range | None = question
    while rest is not None:
        results.append(rest.answer(task, by, DEFAULT_CONSISTENCY))
        rest = results[-1].rest
    return results


CONDITIONS: dict[str, Callable[[int], bool]] = {
    "n % 7 = 0": lambda number: number % 7 == 0,
    "FALSE": lambda _: False,
    "TRUE": lambda _: True,
    "$key < 'k100' AND $partition = 2": lambda number: number < 100,
    "$timestamp > TIMESTAMP '1970-01-01 00:00:01.5'": lambda number: number > 500,
}


@pytest.mark.parametrize("where", CONDITIONS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 10_000])
async def test_a_copy_gives_the_rows_that_match_in_slices_of_the_rows_that_it_reads(
    store: RocksTaskStore, where: str, limit: int, *, reverse: bool
) -> None:
    await fill(store)
    matching = [key for number, key in enumerate(KEYS) if number % 10 and CONDITIONS[where](number)]
    for start, end in itertools.product((b"", b"k005", b"k300"), (b"k310", b"k6995", None)):
        results = results_of(Range(start, end, reverse=reverse, limit=limit, where=where), active_task(store), reader())
        within = [key for key in matching if key >= start and (end is None or key < end)]
        found = [row.stored_key for result in results for row in result.rows]
        assert found == sorted(within, reverse=reverse)[:limit]
        assert results[0].rows_read is not None
        assert results[0].rows_read <= FIRST_ROWS
        assert all(0 <= (result.rows_read or 0) <= ROWS_PER_SLICE for result in results)
        if limit > len(KEYS):
            every = [key for key in KEYS if key >= start and (end is None or key < end)]
            assert sum(result.rows_read or 0 for result in results) == len(every)


@pytest.mark.parametrize("where", CONDITIONS)
async def test_a_count_is_of_the_rows_that_match(store: RocksTaskStore, where: str) -> None:
    await fill(store)
    by, count, rows_read = reader(), 0, 0
    rest: CountRange | None = CountRange(where=where)
    while rest is not None:
        result = rest.answer(active_task(store), by, DEFAULT_CONSISTENCY)
        count, rows_read, rest = count + result.count, rows_read + (result.rows_read or 0), result.rest
    assert count == sum(number % 10 > 0 and CONDITIONS[where](number) for number in range(len(KEYS)))
    assert rows_read == len(KEYS)


async def test_a_slice_without_matching_rows_says_up_to_which_key_it_has_read(store: RocksTaskStore) -> None:
    await fill(store)
    result = Range(limit=5, where="FALSE").answer(active_task(store), reader(), DEFAULT_CONSISTENCY)
    assert (result.rows, result.rows_read) == ([], FIRST_ROWS)
    assert result.rest is not None
    assert (result.rest.reached, result.rest.limit, result.rest.where) == (KEYS[FIRST_ROWS - 1], 5, "FALSE")
    result = Range(limit=5, reverse=True, where="FALSE").answer(active_task(store), reader(), DEFAULT_CONSISTENCY)
    assert result.rest is not None
    assert result.rest.reached == KEYS[-FIRST_ROWS]


async def test_a_slice_ends_with_its_time_after_one_row_at_least(store: RocksTaskStore) -> None:
    await fill(store)
    seconds = itertools.count()
    by = reader(lambda: float(next(seconds)))
    results = results_of(Range(b"k001", b"k009", limit=9, where="n > 5"), active_task(store), by)
    assert [result.rows_read for result in results] == [1] * 8
    assert [row.stored_key for result in results for row in result.rows] == [b"k006", b"k007", b"k008"]
    results = results_of(Range(b"k001", b"k003", limit=9, fields=(("n",),)), active_task(store), by)
    assert [[row.payload for row in result.rows] for result in results] == [[b'{"n":1}'], [b'{"n":2}']]
    counts: list[tuple[int, int | None]] = []
    rest: CountRange | None = CountRange(b"k001", b"k009", "n > 5")
    while rest is not None:
        counted = rest.answer(active_task(store), by, DEFAULT_CONSISTENCY)
        counts.append((counted.count, counted.rows_read))
        rest = counted.rest
    assert counts == [(0, 1)] * 5 + [(1, 1)] * 3


async def test_a_slice_is_bounded_by_the_bytes_that_are_read_for_it(store: RocksTaskStore) -> None:
    payload = b'{"s": "%b"}' % (b"x" * (BYTES_PER_SLICE // 2))
    rows = [(ROW_PREFIX + key, pack_head(LAYOUT_VERSION, 0, 1, 7) + payload) for key in KEYS[:6]]
    await store.write(rows, b"checkpoint")
    results = results_of(Range(limit=9, where="s = ''"), active_task(store), reader())
    assert all((result.rows_read or 0) <= 2 for result in results)
    assert sum(result.rows_read or 0 for result in results) == 6


async def test_a_row_without_a_value_is_named_and_one_beyond_the_limit_is_not_read(store: RocksTaskStore) -> None:
    await fill(store)
    task = active_task(store)
    for question in (Range(limit=9, where="1 / (n - 4) > -2"), CountRange(where="1 / (n - 4) > -2")):
        with pytest.raises(ExpressionFailed, match=r'the row with key "k004": line 1, column 1: .*zero') as caught:
            question.answer(task, reader(), DEFAULT_CONSISTENCY)
        assert (caught.value.details["key"], caught.value.details["partition"]) == ("k004", 2)
    result = Range(limit=3, where="1 / (n - 4) > -2").answer(task, reader(), DEFAULT_CONSISTENCY)
    assert [row.stored_key for row in result.rows] == [b"k001", b"k002", b"k003"]


async def test_a_text_that_this_worker_cannot_parse_is_refused(store: RocksTaskStore) -> None:
    with pytest.raises(InvalidExpression):
        Range(where="n >").answer(active_task(store), reader(), DEFAULT_CONSISTENCY)


async def test_payloads_have_the_members_that_are_wanted(store: RocksTaskStore) -> None:
    await fill(store)
    question = Range(b"k001", b"k003", limit=9, where="s = 'x'", fields=(("n",),))
    result = question.answer(active_task(store), reader(), DEFAULT_CONSISTENCY)
    assert [row.payload for row in result.rows] == [b'{"n":1}', b'{"n":2}']
    result = Range(b"k000", b"k002", limit=9, fields=(("n",),)).answer(
        active_task(store), reader(), DEFAULT_CONSISTENCY
    )
    assert [(row.payload, row.deleted) for row in result.rows] == [(b"", True), (b'{"n":1}', False)]


async def test_the_timestamp_of_a_record_without_one_is_null(store: RocksTaskStore) -> None:
    await store.write([(ROW_PREFIX + b"a", pack_head(LAYOUT_VERSION, 0, -1, 7) + b"{}")], b"checkpoint")
    for where, count in (("$timestamp IS NULL", 1), ("$timestamp IS NOT NULL", 0)):
        assert CountRange(where=where).answer(active_task(store), reader(), DEFAULT_CONSISTENCY).count == count


@pytest.mark.parametrize(
    ("key", "value", "stored", "expected"),
    [
        (KeySpec("string"), "json", b"a", ("a", True)),
        (KeySpec("bytes"), "string", b"\xff\x00", ("_wA", False)),
        (KeySpec("long"), "bytes", (2**63 + 7).to_bytes(8, "big"), ("7", False)),
    ],
)
def test_a_task_knows_how_its_rows_are_shown(
    key: KeySpec, value: ValueFormatName, stored: bytes, expected: tuple[object, bool]
) -> None:
    form = codec_of(TableSpec("t", SourceSpec("t-topic", key, ValueSpec(value))), 0, 4, NO_REGISTRY).form
    assert (form.key(stored), form.is_json) == expected


async def test_conditions_are_kept_by_their_text_up_to_a_bound() -> None:
    first = condition("n = 1")
    assert condition("n = 1") is first
    for number in range(2 * CONDITIONS_KEPT):
        condition(f"n = 1 AND m = {number}")
    assert condition.cache_info().currsize <= CONDITIONS_KEPT
    assert condition("n = 1") is not first


async def test_a_long_text_is_compiled_in_the_thread_and_kept() -> None:
    text = " OR ".join(f"n = {number}" for number in range(50))
    before = condition.cache_info().misses
    await Turns().finish(prepared(text))
    condition(text)
    assert condition.cache_info().misses == before + 1
    with pytest.raises(InvalidExpression):
        await Turns().finish(prepared(text + " OR"))


@pytest.mark.parametrize(
    ("paths", "text", "expected"),
    [
        ((("b",), ("a",)), b'{"a":1.0,"b":2}', b'{"b":2,"a":1.0}'),
        (
            (("a", "b"), ("a", "c", "d")),
            b'{"a":{"c":{"d":[1e2 ],"e":2},"b":null}}',
            b'{"a":{"b":null,"c":{"d":[1e2 ]}}}',
        ),
        ((("a", "b"), ("a",)), b'{"a":{"c":1}}', b'{"a":{"c":1}}'),
        ((("a", "b"),), b'{"a":[{"b":1}]}', b"{}"),
        ((("a",),), b'{"a":1,"a":2}', b'{"a":2}'),
        ((('q"',), ("x",)), b'{"x":1,"q\\"":"\\u00e9"}', b'{"q\\"":"\\u00e9","x":1}'),
        ((("a",),), b" 7", b"{}"),
    ],
)
def test_a_projection_keeps_the_text_and_the_nesting_of_members(
    paths: tuple[tuple[str, ...], ...], text: bytes, expected: bytes
) -> None:
    assert projection(paths)(text) == expected
