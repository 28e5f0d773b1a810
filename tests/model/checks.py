"""The invariants: of every read at any moment, and of the tables at the end."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from tablehouse.errors import RequestError
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, Freshness, ReadMode, Role, TopicPartition
from tablehouse.stores.rows import LAYOUT_VERSION, pack_head
from tablehouse.tasks.source_ends import KNOWN_SECONDS
from tablehouse.tasks.task import Task
from tablehouse.testing.simulated.world import World
from tests.model.oracle import Expected
from tests.model.tables import Table
from tests.model.worker import Worker, rows_of


class Checks:
    """Compares answers and tables with the oracle."""

    def __init__(self, world: World, tables: Sequence[Table]) -> None:
        self.reads: dict[str, int] = {}
        self._world = world
        self._tables = {table.name: table for table in tables}
        self._expected = {(source, table.name): Expected(table.fold) for source in world.sources for table in tables}
        #: The furthest position that an active has shown.
        self._shown: dict[tuple[TopicPartition, str], int] = {}
        self._durable: dict[tuple[TopicPartition, str], tuple[int, int]] = {}

    def expected(self, source: TopicPartition, table: str) -> Expected:
        """Return the oracle's rows of a table, up to date with the source."""
        expected = self._expected[source, table]
        log = self._world.sources[source]
        expected.learn(log.read(expected.seen + 1, len(log.records) + 1)[0])
        return expected

    def durable(self, source: TopicPartition, table: str) -> int:
        """Return the highest source offset of a position in the changelog."""
        log = self._world.changelogs[self._tables[table].changelog(source)]
        seen, furthest = self._durable.get((source, table), (0, -1))
        if seen > log.end:
            seen, furthest = 0, -1
        records, end = log.read(seen, len(log.records) + 1)
        for record in records:
            if record.key == b"\x00position" and record.headers:
                furthest = max(furthest, msgspec.msgpack.decode(record.value or b"")["to"])
        self._durable[source, table] = end, furthest
        return furthest

    def read(
        self,
        worker: Worker,
        source: TopicPartition,
        task: Task,
        key: bytes,
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> None:
        """Read a key from a worker and check the answer."""
        world, table = self._world, task.table
        try:
            answer = worker.read(task, key, consistency)
        except RequestError as refused:
            self._count(refused.code)
            return
        position, role = answer.freshness.position.total, answer.freshness.role
        durable = self.durable(source, table)
        self.letters(source, table, durable)
        row = answer.row
        data = None if row is None else pack_head(LAYOUT_VERSION, 0, row.timestamp_ms, row.offset) + row.payload
        about = f"{worker.name} says {data!r} for {key!r} of {table} in {source} as {role} at {position}"
        if position > durable:
            raise AssertionError(f"{about}: the changelog is at {durable}")
        possible = self.expected(source, table).between(key, position, durable)
        if data not in possible:
            raise AssertionError(f"{about}: possible up to {durable} are {possible}")
        self._label(source, answer.freshness, about)
        if role is not Role.ACTIVE:
            if data is None and not (role is Role.STANDBY and consistency.takes_standby_misses):
                raise AssertionError(f"{about}: only an active may say so")
            if consistency.mode is ReadMode.ACTIVE:
                raise AssertionError(f"{about}: an active was asked for")
            self._count(role.value if data is not None else f"{role.value} miss")
            return
        owner = world.group.assignment.get(source)
        if worker.process is None or owner != worker.process.name or task.generation != world.group.generation:
            raise AssertionError(f"{about}: {owner} owns it in generation {world.group.generation}")
        end, stable = world.group.ends_at[task.generation][source]
        # While an open transaction holds back records, other than its own, rows may be served, but no key may be
        # reported as missing.
        begun_at = stable if data is not None else end
        if position + 1 < begun_at:
            raise AssertionError(f"{about}: the source was at {begun_at} when generation {task.generation} began")
        shown = self._shown.get((source, table), -1)
        if position < shown:
            raise AssertionError(f"{about}: {shown} was shown before")
        self._shown[source, table] = position
        self._count("hit" if data is not None else "miss")

    def _label(self, source: TopicPartition, freshness: Freshness, about: str) -> None:
        """Check lag and staleness against everything that the source held, whether it could be read or not."""
        log, now, applied = self._world.sources[source], asyncio.get_running_loop().time(), freshness.position.total + 1
        lag, staleness = freshness.lag_records, freshness.staleness_ms
        if lag is not None and applied + lag < (end := log.end_at(now - KNOWN_SECONDS)):
            raise AssertionError(f"{about}: {lag} records behind, and the source was at {end} before")
        if staleness is not None and applied < (end := log.end_at(now - (staleness + 1) / 1000)):
            raise AssertionError(f"{about}: {staleness} ms stale, and the source was at {end} before")

    def letters(self, source: TopicPartition, table: str, position: int) -> None:
        """Check that no dead letter of a table is missing once its changelog has reached a position."""
        if self._tables[table].on_error != "dead_letter":
            return
        bad = [offset for offset in self.expected(source, table).bad if offset <= position]
        missing = set(bad) - self.lettered(source, table)
        if missing:
            raise AssertionError(f"{table} of {source} is at {position} without dead letters of {sorted(missing)}")

    def lettered(self, source: TopicPartition, table: str) -> set[int]:
        """Return the source offsets of a table's dead letters."""
        return {offset for name, place, offset, _ in self._world.letters if (name, place) == (table, source)}

    def committed(self, source: TopicPartition, offset: int, applied: Mapping[str, int]) -> None:
        """Check a source offset that a worker commits: every table must have applied everything before it."""
        for table, position in applied.items():
            if position + 1 < offset:
                raise AssertionError(f"{source} is committed at {offset}, but {table} is at {position}")
        for table in self._tables:
            if self.durable(source, table) + 1 < offset:
                raise AssertionError(f"{source} is committed at {offset}, which the changelog of {table} does not have")

    def final(self, worker: Worker) -> None:
        """Compare all tables of a worker that owns everything and has caught up with source and changelog."""
        for source, table in self._expected:
            self.table(worker, source, table)

    def table(self, worker: Worker, source: TopicPartition, table: str) -> None:
        """Compare one table."""
        rows, expected = rows_of(worker, source, table), self.expected(source, table).rows()
        task = worker.task(source, table)
        if task is None or task.position.total + 1 != self._world.sources[source].end:
            raise AssertionError(f"{table} of {source} is at {task and task.position.total}, not at the source's end")
        _same(rows, expected, f"{table} of {source} on {worker.name}", "the source says")
        self.letters(source, table, task.position.total)
        folded: dict[bytes, bytes] = {}
        for record in self._world.changelogs[self._tables[table].changelog(source)].records:
            if record.key is None or record.key[:1] != b"\x01":
                continue
            if record.value is None:
                folded.pop(record.key[1:], None)
            else:
                folded[record.key[1:]] = record.value
        _same(folded, rows, f"the changelog of {table} of {source}", "the store has")

    def _count(self, answer: str) -> None:
        self.reads[answer] = self.reads.get(answer, 0) + 1


def _same(found: Mapping[bytes, bytes], right: Mapping[bytes, bytes], what: str, says: str) -> None:
    for key in sorted({*found, *right}):
        if found.get(key) != right.get(key):
            raise AssertionError(f"{what} has {found.get(key)!r} for {key!r}, but {says} {right.get(key)!r}")
