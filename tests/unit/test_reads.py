"""A read in every state of a task, against one table that says what each may answer."""

import itertools
from types import SimpleNamespace
from typing import cast

import pytest

from app.errors import MisplacedKeys, NotOwner, PartitionRestoring, RequestError, TooStale
from app.model import Role, TaskState
from app.stores.rows import LAYOUT_VERSION, pack_head
from app.stores.store import StoreClosed
from app.tasks.reads import Reader
from app.tasks.task import Task

ROW = pack_head(LAYOUT_VERSION, 0, 1_000, 7) + b"payload"
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
    ("STANDBY", ANYTHING, ANYTHING, NotOwner),
    ("CLOSED", ANYTHING, ANYTHING, NotOwner),
    ("OPENING", ANYTHING, ANYTHING, PartitionRestoring),
    ("RESTORING", ANYTHING, ANYTHING, PartitionRestoring),
    ("QUARANTINED", ANYTHING, ANYTHING, PartitionRestoring),
]
LEASES = {"good": 0.1, "lately lost": MAX_STALENESS / 2, "long lost": MAX_STALENESS * 2}
CONTENTS = ("row", "none", "none, misplaced")


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
    def __init__(self, content: str) -> None:
        self._content = content

    def get(self, key: bytes) -> bytes | None:
        if self._content == "closed":
            raise StoreClosed("closed")
        return ROW if self._content == "row" and key == b"\x01key" else None


def task_in(state: str, content: str, *, readable: bool = True, generation: int = 3) -> Task:
    task = SimpleNamespace(
        table="planes",
        partition=2,
        state=TaskState[state],
        readable=readable,
        applied=41,
        generation=generation,
        doubt="a key lies elsewhere" if content.endswith("misplaced") else None,
        store=_Store(content),
        lag_records=5,
        staleness_ms=12,
        remaining=30,
        reason="because",
    )
    return cast("Task", task)


def test_the_table_covers_every_state_lease_and_content() -> None:
    covered = {case[:3] for case in cases()}
    assert covered == set(itertools.product(TaskState.__members__, LEASES, CONTENTS))
    assert len(covered) == len(cases())


@pytest.mark.parametrize(("state", "lease", "content", "answer"), cases())
def test_a_read_in_a_state_is_answered_as_the_table_says(
    state: str, lease: str, content: str, answer: type[RequestError] | Role | str
) -> None:
    reader = Reader(_Lease(lease), MAX_STALENESS)
    task = task_in(state, content)
    if isinstance(answer, type):
        with pytest.raises(answer):
            reader.read(task, b"key")
        return
    result = reader.read(task, b"key")
    if answer == "no such key":
        assert result.row is None
        assert result.freshness.role is Role.ACTIVE
    else:
        assert result.row is not None
        assert (result.row.payload, result.row.timestamp_ms, result.row.offset) == (b"payload", 1_000, 7)
        assert result.freshness.role is answer
    assert (result.freshness.partition, result.freshness.position, result.freshness.lag_records) == (2, 41, 5)


@pytest.mark.parametrize("state", ["ACTIVE", "SUSPENDED"])
@pytest.mark.parametrize("content", ["row", "none", "closed"])
def test_a_store_that_holds_no_consistent_state_answers_nothing(state: str, content: str) -> None:
    with pytest.raises(PartitionRestoring):
        Reader(_Lease("good"), MAX_STALENESS).read(task_in(state, content, readable=False), b"key")


def test_a_store_that_closes_under_a_read_is_no_miss() -> None:
    with pytest.raises(PartitionRestoring):
        Reader(_Lease("good"), MAX_STALENESS).read(task_in("ACTIVE", "closed"), b"key")


def test_a_lease_of_another_generation_makes_no_active() -> None:
    reader = Reader(_Lease("good"), MAX_STALENESS)
    assert reader.read(task_in("ACTIVE", "row", generation=4), b"key").freshness.role is Role.SUSPENDED
    with pytest.raises(PartitionRestoring):
        reader.read(task_in("ACTIVE", "none", generation=4), b"key")


def test_a_503_says_how_far_the_restore_is() -> None:
    with pytest.raises(PartitionRestoring) as raised:
        Reader(_Lease("good"), MAX_STALENESS).read(task_in("RESTORING", "row"), b"key")
    assert raised.value.retry_after == 1
    assert raised.value.details["remaining_records"] == 30
    assert raised.value.details["state"] == "restoring"
    assert "because" in raised.value.detail


@pytest.mark.parametrize(("lease", "role"), [("good", Role.ACTIVE), ("lately lost", Role.SUSPENDED)])
def test_misplaced_keys_make_no_difference_to_a_row_that_is_there(lease: str, role: Role) -> None:
    task = task_in("ACTIVE", "row")
    cast("SimpleNamespace", task).doubt = "a key lies elsewhere"
    assert Reader(_Lease(lease), MAX_STALENESS).read(task, b"key").freshness.role is role


def test_exactly_the_staleness_allowed_is_still_allowed() -> None:
    lease = _Lease("long lost")
    assert Reader(lease, lease.age()).read(task_in("SUSPENDED", "row"), b"key").freshness.role is Role.SUSPENDED


def test_a_row_written_while_it_is_read_is_newer_than_its_label_and_not_older() -> None:
    task = task_in("ACTIVE", "row")
    fields = cast("SimpleNamespace", task)

    class Advancing(_Store):
        def get(self, key: bytes) -> bytes | None:
            fields.applied = 42
            return super().get(key)

    fields.store = Advancing("row")
    assert Reader(_Lease("good"), MAX_STALENESS).read(task, b"key").freshness.position == 41


@pytest.mark.parametrize(("content", "role"), [("row", Role.SUSPENDED), ("none", None)])
def test_a_lease_that_runs_out_while_the_store_is_read_makes_no_active(content: str, role: Role | None) -> None:
    lease = _Lease("good")
    task = task_in("ACTIVE", content)

    class Slow(_Store):
        def get(self, key: bytes) -> bytes | None:
            lease.name = "lately lost"
            return super().get(key)

    cast("SimpleNamespace", task).store = Slow(content)
    reader = Reader(lease, MAX_STALENESS)
    if role is None:
        with pytest.raises(PartitionRestoring):
            reader.read(task, b"key")
    else:
        assert reader.read(task, b"key").freshness.role is role
