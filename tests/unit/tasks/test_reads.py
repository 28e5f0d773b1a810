"""A read in every state of a task, against one table that says what each may answer."""

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from tablehouse.errors import MisplacedKeys, NotOwner, PartitionRestoring, PositionNotReached, RequestError, TooStale
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, ReadMode, Role, TaskState
from tablehouse.positions import Position
from tablehouse.stores.rows import DELETED, LAYOUT_VERSION, pack_head
from tablehouse.stores.store import StoreClosed
from tablehouse.tasks.ranges import Range, RangeResult
from tablehouse.tasks.reads import Reader, ReadResult
from tablehouse.tasks.task import Task
from tests.support.positions import at

ROW = pack_head(LAYOUT_VERSION, 0, 1_000, 7) + b"payload"
MARK = pack_head(LAYOUT_VERSION, DELETED, 900, 6)
MAX_STALENESS = 60.0
ANYTHING = "anything"

#: State; lease: good, lately or long lost; content: a row, none, none with keys misplaced; then the answer.
TABLE = [
    ("ACTIVE", "good", "row", Role.ACTIVE),
    ("ACTIVE", "good", "none", "no such key"),
    ("ACTIVE", "good", "none, misplaced", MisplacedKeys),
    ("ACTIVE", "lately lost", "row", Role.SUSPENDED),
    ("ACTIVE", "lately lost", "none", PartitionRestoring),
    ("ACTIVE", "lately lost", "none, misplaced", PartitionRestoring),
    ("ACTIVE", "long lost", "row", TooStale),
    ("ACTIVE", "long lost", "none", PartitionRestoring),
    ("ACTIVE", "long lost", "none, misplaced", PartitionRestoring),
    ("SUSPENDED", "good", "row", Role.SUSPENDED),
    ("SUSPENDED", "good", "none", PartitionRestoring),
    ("SUSPENDED", "good", "none, misplaced", PartitionRestoring),
    ("SUSPENDED", "lately lost", "row", Role.SUSPENDED),
    ("SUSPENDED", "lately lost", "none", PartitionRestoring),
    ("SUSPENDED", "lately lost", "none, misplaced", PartitionRestoring),
    ("SUSPENDED", "long lost", "row", TooStale),
    ("SUSPENDED", "long lost", "none", PartitionRestoring),
    ("SUSPENDED", "long lost", "none, misplaced", PartitionRestoring),
    ("STANDBY", ANYTHING, "row", Role.STANDBY),
    ("STANDBY", ANYTHING, "none", PartitionRestoring),
    ("STANDBY", ANYTHING, "none, misplaced", MisplacedKeys),
    ("CLOSED", ANYTHING, ANYTHING, NotOwner),
    ("OPENING", ANYTHING, ANYTHING, PartitionRestoring),
    ("RESTORING", ANYTHING, ANYTHING, PartitionRestoring),
    ("QUARANTINED", ANYTHING, ANYTHING, PartitionRestoring),
]
LEASES = {"good": 0.1, "lately lost": MAX_STALENESS / 2, "long lost": MAX_STALENESS * 2}
CONTENTS = ("row", "none", "none, misplaced")


#: What a caller asks of an answer. The tasks here are at offset 41 of partition 2, 5 records behind, 12 ms stale.
ASKS = {
    "active": Consistency(ReadMode.ACTIVE),
    "any": Consistency(ReadMode.ANY),
    "12 ms": Consistency(max_staleness_ms=12),
    "11 ms": Consistency(max_staleness_ms=11),
    "1 h": Consistency(max_staleness_ms=3_600_000),
    "5 records": Consistency(max_lag=5),
    "4 records": Consistency(max_lag=4),
    "any, 4 records": Consistency(ReadMode.ANY, max_lag=4),
    "active, 12 ms": Consistency(ReadMode.ACTIVE, max_staleness_ms=12),
    "active, 11 ms": Consistency(ReadMode.ACTIVE, max_staleness_ms=11),
    "reached": Consistency(min_position=Position.parse("2:7,2:41,3:99")),
    "not reached": Consistency(min_position=Position.parse("2:42,2:7")),
    "elsewhere": Consistency(min_position=at(3, 99)),
    "any, not reached": Consistency(ReadMode.ANY, min_position=at(2, 42)),
}
#: State, lease, what is asked, the answer to a key that has a row, and to one that has none.
ASKED = [
    ("ACTIVE", "good", "active", Role.ACTIVE, Role.ACTIVE),
    ("ACTIVE", "good", "any", Role.ACTIVE, Role.ACTIVE),
    ("ACTIVE", "good", "12 ms", Role.ACTIVE, Role.ACTIVE),
    ("ACTIVE", "good", "11 ms", TooStale, TooStale),
    ("ACTIVE", "good", "1 h", Role.ACTIVE, Role.ACTIVE),
    ("ACTIVE", "good", "5 records", Role.ACTIVE, Role.ACTIVE),
    ("ACTIVE", "good", "4 records", TooStale, TooStale),
    ("ACTIVE", "good", "any, 4 records", TooStale, TooStale),
    ("ACTIVE", "good", "active, 12 ms", Role.ACTIVE, Role.ACTIVE),
    ("ACTIVE", "good", "active, 11 ms", TooStale, TooStale),
    ("ACTIVE", "good", "reached", Role.ACTIVE, Role.ACTIVE),
    ("ACTIVE", "good", "not reached", PositionNotReached, PositionNotReached),
    ("ACTIVE", "good", "elsewhere", Role.ACTIVE, Role.ACTIVE),
    ("ACTIVE", "good", "any, not reached", PositionNotReached, PositionNotReached),
    ("ACTIVE", "long lost", "active", PartitionRestoring, PartitionRestoring),
    ("ACTIVE", "long lost", "any", TooStale, PartitionRestoring),
    ("ACTIVE", "long lost", "1 h", Role.SUSPENDED, PartitionRestoring),
    ("SUSPENDED", "lately lost", "active", PartitionRestoring, PartitionRestoring),
    ("SUSPENDED", "lately lost", "any", Role.SUSPENDED, PartitionRestoring),
    ("SUSPENDED", "lately lost", "12 ms", TooStale, PartitionRestoring),
    ("SUSPENDED", "lately lost", "11 ms", TooStale, PartitionRestoring),
    ("SUSPENDED", "lately lost", "1 h", Role.SUSPENDED, PartitionRestoring),
    ("SUSPENDED", "long lost", "1 h", Role.SUSPENDED, PartitionRestoring),
    ("SUSPENDED", "lately lost", "5 records", Role.SUSPENDED, PartitionRestoring),
    ("SUSPENDED", "lately lost", "4 records", TooStale, PartitionRestoring),
    ("SUSPENDED", "long lost", "5 records", TooStale, PartitionRestoring),
    ("SUSPENDED", "lately lost", "reached", Role.SUSPENDED, PartitionRestoring),
    ("SUSPENDED", "lately lost", "not reached", PositionNotReached, PositionNotReached),
    ("STANDBY", "good", "active", NotOwner, NotOwner),
    ("STANDBY", "good", "active, 12 ms", NotOwner, NotOwner),
    ("STANDBY", "good", "any", Role.STANDBY, Role.STANDBY),
    ("STANDBY", "good", "12 ms", Role.STANDBY, Role.STANDBY),
    ("STANDBY", "good", "11 ms", TooStale, TooStale),
    ("STANDBY", "good", "1 h", Role.STANDBY, Role.STANDBY),
    ("STANDBY", "good", "5 records", Role.STANDBY, Role.STANDBY),
    ("STANDBY", "good", "4 records", TooStale, TooStale),
    ("STANDBY", "good", "any, 4 records", TooStale, TooStale),
    ("STANDBY", "good", "reached", Role.STANDBY, PartitionRestoring),
    ("STANDBY", "good", "not reached", PositionNotReached, PositionNotReached),
    ("STANDBY", "good", "elsewhere", Role.STANDBY, PartitionRestoring),
    ("STANDBY", "good", "any, not reached", PositionNotReached, PositionNotReached),
    ("RESTORING", "good", "any", PartitionRestoring, PartitionRestoring),
    ("RESTORING", "good", "active", PartitionRestoring, PartitionRestoring),
    ("RESTORING", "good", "not reached", PartitionRestoring, PartitionRestoring),
    ("QUARANTINED", "good", "any", PartitionRestoring, PartitionRestoring),
    ("CLOSED", "good", "any", NotOwner, NotOwner),
]


def cases() -> list[tuple[str, str, str, object]]:
    return [
        (state, lease, content, answer)
        for state, leases, contents, answer in TABLE
        for lease in (LEASES if leases == ANYTHING else [leases])
        for content in (CONTENTS if contents == ANYTHING else [contents])
    ]


class _Lease:
    def __init__(self, name: str) -> None:
        self.name = name

    def holds(self, generation: int) -> bool:
        return self.name == "good" and generation == 3

    def age(self) -> float:
        return LEASES[self.name]

    async def confirm(self, generation: int) -> None:
        raise AssertionError(f"a read never waits for a heartbeat of generation {generation}")


class _Store:
    def __init__(self, content: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._content, self._meanwhile = content, meanwhile

    def get(self, key: bytes) -> bytes | None:
        self._meanwhile()
        if self._content == "closed":
            raise StoreClosed("closed")
        return {"row": ROW, "mark": MARK}.get(self._content) if key == b"\x01key" else None

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return [self.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool, limit: int) -> Sequence[tuple[bytes, bytes]]:
        assert (start, end, reverse, limit) == (b"\x01", b"\x02", False, 3)
        row = self.get(b"\x01key")
        return [] if row is None else [(b"\x01key", row)]


def task_in(state: str, content: str, **changes: object) -> Task:
    fields: dict[str, object] = {
        "table": "planes",
        "partition": 2,
        "state": TaskState[state],
        "readable": True,
        "position": at(2, 41),
        "rejected": 0,
        "generation": 3,
        "doubt": "a key lies elsewhere" if content.endswith("misplaced") else None,
        "store": _Store(content),
        "lag_records": 5,
        "staleness_ms": 12,
        "remaining": 30,
        "reason": "because",
        "blocked": False,
        "held_back_reason": None,
        "refusal": None,
    }
    return cast("Task", SimpleNamespace(**(fields | changes)))


def read(task: Task, ask: str | None = None, lease: str = "good") -> ReadResult:
    """Read the key that may have a row, with the consistency of an ask or the default one."""
    consistency = DEFAULT_CONSISTENCY if ask is None else ASKS[ask]
    return Reader(_Lease(lease), MAX_STALENESS).read(task, b"key", consistency)


def advancing(state: str, **changes: object) -> Task:
    """Return a task with a row, whose fields change while its store is read."""
    task = task_in(state, "row")
    fields = cast("SimpleNamespace", task)
    fields.store = _Store("row", lambda: vars(fields).update(changes))
    return task


def losing_its_lease(content: str) -> tuple[Reader, Task]:
    """Return an active whose lease runs out while its store is read, and its reader."""
    lease = _Lease("good")
    return Reader(lease, MAX_STALENESS), task_in(
        "ACTIVE", content, store=_Store(content, lambda: setattr(lease, "name", "lately lost"))
    )


def test_the_table_covers_every_state_lease_and_content() -> None:
    covered = {case[:3] for case in cases()}
    assert covered == set(itertools.product(TaskState.__members__, LEASES, CONTENTS))
    assert len(covered) == len(cases())


@pytest.mark.parametrize(("state", "lease", "content", "answer"), cases())
def test_a_read_in_a_state_is_answered_as_the_table_says(
    state: str, lease: str, content: str, answer: type[RequestError] | Role | str
) -> None:
    task = task_in(state, content)
    if isinstance(answer, type):
        with pytest.raises(answer):
            read(task, lease=lease)
        return
    result = read(task, lease=lease)
    if answer == "no such key":
        assert result.row is None
        assert result.freshness.role is Role.ACTIVE
    else:
        assert result.row is not None
        assert (result.row.payload, result.row.timestamp_ms, result.row.offset) == (b"payload", 1_000, 7)
        assert result.freshness.role is answer
    assert (result.freshness.partition, result.freshness.position, result.freshness.lag_records) == (2, at(2, 41), 5)


@pytest.mark.parametrize(("state", "lease", "content", "answer"), [case for case in cases() if case[2] != "row"])
def test_a_mark_of_a_deleted_key_is_as_good_as_no_row_in_every_state_and_says_when(
    state: str, lease: str, content: str, answer: type[RequestError] | Role | str
) -> None:
    reader, task = Reader(_Lease(lease), MAX_STALENESS), task_in(state, content, store=_Store("mark"))
    if isinstance(answer, type):
        with pytest.raises(answer):
            reader.read(task, b"key", DEFAULT_CONSISTENCY)
        return
    result = reader.read(task, b"key", DEFAULT_CONSISTENCY)
    assert (result.row, result.deleted_ms, result.freshness.role) == (None, 900, Role.ACTIVE)
    assert reader.read_many(task, [b"key"], DEFAULT_CONSISTENCY).payloads == [None]


@pytest.mark.parametrize(("state", "lease", "ask", "of_a_row", "of_none"), ASKED)
@pytest.mark.parametrize("content", ["row", "none"])
def test_what_a_caller_asks_is_given_or_refused_as_the_table_says(
    state: str,
    lease: str,
    ask: str,
    of_a_row: type[RequestError] | Role,
    of_none: type[RequestError] | Role,
    content: str,
) -> None:
    answer = of_a_row if content == "row" else of_none
    task = task_in(state, content)
    if isinstance(answer, type):
        with pytest.raises(answer):
            read(task, ask, lease)
        return
    result = read(task, ask, lease)
    assert result.freshness.role is answer
    assert (result.row is None) is (content == "none")


def test_every_ask_is_tried_on_the_active_and_on_a_standby() -> None:
    for state in ("ACTIVE", "STANDBY"):
        assert {ask for of, _, ask, *_ in ASKED if of == state} >= set(ASKS) - {"active, 11 ms"}


@pytest.mark.parametrize("state", ["ACTIVE", "STANDBY", "SUSPENDED"])
@pytest.mark.parametrize("ask", ["1 h", "5 records"])
def test_what_is_not_known_is_beyond_every_bound(state: str, ask: str) -> None:
    task = task_in(state, "row", lag_records=None, staleness_ms=None)
    with pytest.raises(TooStale, match="unknown"):
        read(task, ask)


@pytest.mark.parametrize("state", ["ACTIVE", "STANDBY", "SUSPENDED"])
def test_a_table_in_doubt_is_beyond_every_bound_that_a_caller_gives(state: str) -> None:
    task = task_in(state, "row", doubt="a key lies elsewhere")
    for ask in ("1 h", "5 records"):
        with pytest.raises(TooStale):
            read(task, ask)
    freshness = read(task).freshness
    assert (freshness.lag_records, freshness.staleness_ms) == (None, None)


@pytest.mark.parametrize("ask", ["any", "12 ms", "5 records"])
def test_misses_of_a_table_in_doubt_prove_nothing_to_those_who_take_a_standby_s_word_either(ask: str) -> None:
    with pytest.raises(MisplacedKeys):
        read(task_in("STANDBY", "none, misplaced"), ask)


@pytest.mark.parametrize(("staleness_ms", "given"), [(60_000, True), (60_001, False), (None, False)])
def test_a_standby_answers_within_the_default_bound_when_the_caller_gave_none(
    staleness_ms: int | None, *, given: bool
) -> None:
    reader, task = Reader(_Lease("good"), MAX_STALENESS), task_in("STANDBY", "row", staleness_ms=staleness_ms)
    for asked in (DEFAULT_CONSISTENCY, ASKS["any"], ASKS["5 records"], ASKS["reached"]):
        if given:
            assert reader.read(task, b"key", asked).freshness.staleness_ms == staleness_ms
        else:
            with pytest.raises(TooStale):
                reader.read(task, b"key", asked)


def test_a_caller_s_bound_takes_the_place_of_the_default_one_in_both_directions() -> None:
    task = task_in("STANDBY", "row", staleness_ms=90_000)
    assert read(task, "1 h").freshness.staleness_ms == 90_000
    with pytest.raises(TooStale, match="90000 ms stale; the bound is max_staleness_ms=12"):
        read(task, "12 ms")


@pytest.mark.parametrize(("blocked", "seconds"), [(False, 1), (True, 60)])
def test_callers_of_a_partition_that_waits_for_a_person_are_asked_to_wait_longer(
    *, blocked: bool, seconds: int
) -> None:
    task = task_in("RESTORING", "closed", readable=False, blocked=blocked)
    with pytest.raises(PartitionRestoring) as raised:
        read(task)
    assert raised.value.retry_after == seconds


@pytest.mark.parametrize("ask", ["4 records", "not reached", "default miss"])
def test_a_refusal_of_a_readable_copy_says_how_fresh_it_is(ask: str) -> None:
    task = task_in("STANDBY", "none" if ask == "default miss" else "row")
    with pytest.raises(RequestError) as raised:
        Reader(_Lease("good"), MAX_STALENESS).read(task, b"key", ASKS.get(ask, DEFAULT_CONSISTENCY))
    details = {"table": "planes", "partition": 2, "position": 41, "role": "standby", "lag_records": 5}
    assert raised.value.details.items() >= (details | {"staleness_ms": 12}).items()
    assert raised.value.retry_after == 1


def test_a_standby_s_miss_tells_how_far_behind_it_is() -> None:
    with pytest.raises(PartitionRestoring, match="up to offset 41, 5 records behind, 12 ms stale"):
        read(task_in("STANDBY", "none"))


@pytest.mark.parametrize("state", ["ACTIVE", "SUSPENDED", "STANDBY"])
@pytest.mark.parametrize("content", ["row", "none", "closed"])
def test_a_store_that_holds_no_consistent_state_answers_nothing(state: str, content: str) -> None:
    with pytest.raises(PartitionRestoring):
        read(task_in(state, content, readable=False))


def test_a_store_that_closes_under_a_read_is_no_miss() -> None:
    with pytest.raises(PartitionRestoring):
        read(task_in("ACTIVE", "closed"))


def test_a_lease_of_another_generation_makes_no_active() -> None:
    assert read(task_in("ACTIVE", "row", generation=4)).freshness.role is Role.SUSPENDED
    with pytest.raises(PartitionRestoring):
        read(task_in("ACTIVE", "none", generation=4))


def test_a_503_says_how_far_the_restore_is() -> None:
    with pytest.raises(PartitionRestoring) as raised:
        read(task_in("RESTORING", "row"))
    assert raised.value.retry_after == 1
    assert raised.value.details["remaining_records"] == 30
    assert raised.value.details["state"] == "restoring"
    assert "because" in raised.value.detail


@pytest.mark.parametrize(("lease", "role"), [("good", Role.ACTIVE), ("lately lost", Role.SUSPENDED)])
def test_misplaced_keys_make_no_difference_to_a_row_that_is_there(lease: str, role: Role) -> None:
    task = task_in("ACTIVE", "row", doubt="a key lies elsewhere")
    assert read(task, lease=lease).freshness.role is role


def test_exactly_the_staleness_allowed_is_still_allowed() -> None:
    lease = _Lease("long lost")
    assert (
        Reader(lease, lease.age()).read(task_in("SUSPENDED", "row"), b"key", DEFAULT_CONSISTENCY).freshness.role
        is Role.SUSPENDED
    )


@pytest.mark.parametrize("state", ["ACTIVE", "STANDBY"])
def test_a_row_written_while_it_is_read_is_newer_than_its_label_and_not_older(state: str) -> None:
    freshness = read(advancing(state, position=at(2, 42), lag_records=4, staleness_ms=0)).freshness
    assert (freshness.position, freshness.lag_records, freshness.staleness_ms) == (at(2, 41), 5, 12)


def test_a_position_reached_while_the_row_is_read_is_not_reached_for_this_answer() -> None:
    task = advancing("ACTIVE", position=at(2, 42))
    with pytest.raises(PositionNotReached):
        read(task, "not reached")
    assert read(task, "not reached").freshness.position == at(2, 42)


@pytest.mark.parametrize(("content", "role"), [("row", Role.SUSPENDED), ("none", None)])
def test_a_lease_that_runs_out_while_the_store_is_read_makes_no_active(content: str, role: Role | None) -> None:
    reader, task = losing_its_lease(content)
    if role is None:
        with pytest.raises(PartitionRestoring):
            reader.read(task, b"key", DEFAULT_CONSISTENCY)
    else:
        assert reader.read(task, b"key", DEFAULT_CONSISTENCY).freshness.role is role


def outcome_of(read: Callable[[], object]) -> object:
    """Return what a read gave, or the kind and details of its refusal."""
    try:
        return read()
    except RequestError as error:
        return type(error), error.detail, error.details


@pytest.mark.parametrize("state", TaskState.__members__)
@pytest.mark.parametrize("lease", LEASES)
@pytest.mark.parametrize("content", [*CONTENTS, "closed"])
@pytest.mark.parametrize("ask", [None, *ASKS])
def test_a_key_of_many_gets_the_answer_of_a_single_one(state: str, lease: str, content: str, ask: str | None) -> None:
    consistency = DEFAULT_CONSISTENCY if ask is None else ASKS[ask]
    reader, task = Reader(_Lease(lease), MAX_STALENESS), task_in(state, content)

    def of_many(key: bytes) -> tuple[bytes | None, object]:
        result = reader.read_many(task, [b"key", b"none"], consistency)
        payload = result.payloads[[b"key", b"none"].index(key)]
        refusal = result.miss if payload is None else result.hit
        if refusal is not None:
            raise refusal
        return payload, result.freshness

    def single(key: bytes) -> tuple[bytes | None, object]:
        result = reader.read(task, key, consistency)
        return None if result.row is None else result.row.payload, result.freshness

    for key in (b"key", b"none"):
        assert outcome_of(lambda key=key: of_many(key)) == outcome_of(lambda key=key: single(key))  # type: ignore[misc]


def test_a_lease_that_runs_out_while_many_are_read_makes_no_active() -> None:
    reader, task = losing_its_lease("row")
    result = reader.read_many(task, [b"key", b"none"], DEFAULT_CONSISTENCY)
    assert result.freshness.role is Role.SUSPENDED
    assert result.hit is None
    assert isinstance(result.miss, PartitionRestoring)


@pytest.mark.parametrize("state", TaskState.__members__)
@pytest.mark.parametrize("lease", LEASES)
@pytest.mark.parametrize("content", [*CONTENTS, "mark", "closed"])
@pytest.mark.parametrize("ask", [None, *ASKS])
def test_a_range_is_given_where_a_miss_is_and_refused_with_the_same_words(
    state: str, lease: str, content: str, ask: str | None
) -> None:
    consistency = DEFAULT_CONSISTENCY if ask is None else ASKS[ask]
    reader, task = Reader(_Lease(lease), MAX_STALENESS), task_in(state, content)
    of_range = outcome_of(lambda: Range(limit=3).answer(task, reader, consistency))
    of_miss = outcome_of(lambda: reader.read(task, b"none", consistency))
    if isinstance(of_miss, ReadResult):
        assert isinstance(of_range, RangeResult)
        assert of_range.freshness == of_miss.freshness
        assert [row.stored_key for row in of_range.rows] == ([b"key"] if content in {"row", "mark"} else [])
    else:
        assert of_range == of_miss


def test_a_lease_that_runs_out_while_a_range_is_read_makes_no_active() -> None:
    reader, task = losing_its_lease("row")
    with pytest.raises(PartitionRestoring):
        Range(limit=3).answer(task, reader, DEFAULT_CONSISTENCY)


BOTH = Position(("orders/2", "refunds/2"), (41, 7))


@pytest.mark.parametrize("state", ["ACTIVE", "SUSPENDED", "STANDBY"])
@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        ("orders/2:41,refunds/2:7", None),
        ("refunds/2:7", None),
        ("orders/3:99,refunds/3:99", None),
        ("orders/2:42,refunds/2:7", "orders/2:42"),
        ("orders/2:41,refunds/2:8", "refunds/2:8"),
        ("refunds/2:8,orders/2:99", "refunds/2:8,orders/2:99"),
    ],
)
def test_a_position_in_two_inputs_is_reached_once_both_have_reached_their_part(
    state: str, asked: str, lacking: str | None
) -> None:
    task = task_in(state, "row", position=BOTH)
    reader, consistency = Reader(_Lease("good"), MAX_STALENESS), Consistency(min_position=Position.parse(asked))
    if lacking is None:
        assert reader.read(task, b"key", consistency).freshness.position == BOTH
        return
    with pytest.raises(PositionNotReached) as refused:
        reader.read(task, b"key", consistency)
    assert refused.value.detail == (
        f"partition 2 of table planes is applied up to orders/2:41,refunds/2:7, min_position asks for {lacking}: "
        "because"
    )
    assert refused.value.details["position"] == "orders/2:41,refunds/2:7"


def test_a_refusal_of_a_table_of_one_topic_says_its_position_as_an_offset() -> None:
    with pytest.raises(PositionNotReached) as refused:
        read(task_in("ACTIVE", "row"), "not reached")
    assert refused.value.detail == (
        "partition 2 of table planes is applied up to offset 41, min_position asks for 42: because"
    )
    assert refused.value.details == {
        "table": "planes",
        "partition": 2,
        "position": 41,
        "role": "active",
        "lag_records": 5,
        "staleness_ms": 12,
    }
    with pytest.raises(PartitionRestoring, match="it is applied up to offset 41, 5 records behind"):
        read(task_in("STANDBY", "none"))
    with pytest.raises(PartitionRestoring) as restoring:
        read(task_in("RESTORING", "row"))
    assert list(restoring.value.details.items()) == [
        ("state", "restoring"),
        ("remaining_records", 30),
        ("table", "planes"),
        ("partition", 2),
        ("position", 41),
    ]
