"""This worker's own part of requests: reads from the shards that it holds, and writes to source topics."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tablehouse.catalog.spec import TableSpec
from tablehouse.catalog.view import CatalogView
from tablehouse.errors import Draining, MisplacedKeys, NotOwner, PartitionRestoring, RequestError, SourceUnavailable
from tablehouse.kafka.owner_writer import KafkaOwnerWriter
from tablehouse.kafka.source_writer import KafkaSourceWriter
from tablehouse.model import Consistency, ProducerRecord, SourceEnd, TaskStatus, TopicPartition
from tablehouse.positions import Position
from tablehouse.tasks.questions import Question
from tablehouse.tasks.reads import MISPLACED_RETRY_AFTER
from tablehouse.tasks.shards import Shards

Result = TypeVar("Result")


class LocalSide:
    """Answers for this worker; until the worker has reached a broker, all requests are refused.

    `doubt` returns why misses of a table are inconclusive, None if they are not. The attributes are set from outside:
    `waiting` maps tables that are not served yet to the reason; `held` are the tables that are held back because of
    their partition counts; `disagreements` maps shard names to what this worker and the group's leader count
    differently; `draining` is set when the worker is stopping, and given as the reason for a refusal it causes.
    """

    def __init__(self, catalog: CatalogView, doubt: Callable[[TableSpec], str | None]) -> None:
        self._catalog = catalog
        self._doubt = doubt
        self._shards: Shards | None = None
        self._source_writer: KafkaSourceWriter | None = None
        self._owner_writer: KafkaOwnerWriter | None = None
        self.waiting: Mapping[str, str] = {}
        self.held: frozenset[str] = frozenset()
        self.disagreements: Mapping[str, str] = {}
        self.draining = False

    def open(self, shards: Shards, source_writer: KafkaSourceWriter, owner_writer: KafkaOwnerWriter) -> None:
        """Answer from these shards from now on, except for tables that are held back."""
        self._shards, self._source_writer, self._owner_writer = shards, source_writer, owner_writer

    # Reads

    def answer(self, table: str, partition: int, question: Question[Result], consistency: Consistency) -> Result:
        """Answer a question immediately.

        Raises the same as Shards.answer(), but Draining instead of PartitionRestoring while the worker is stopping;
        NotOwner before it has joined the group, and MisplacedKeys for a table that is held back.
        """
        shards = self._joined_shards(table)
        try:
            return shards.answer(table, partition, question, consistency)
        except PartitionRestoring as error:
            if self.draining:
                raise Draining(f"the worker is shutting down; {error.detail}", **error.details) from None
            raise

    async def wait_for_position(
        self,
        table: str,
        partition: int,
        required: Position,
        timeout: float,  # noqa: ASYNC109
    ) -> None:
        """Wait until all of a position is applied here; raises the same as Shards.wait_for_position()."""
        await self._joined_shards(table).wait_for_position(table, partition, required, timeout)

    def statuses(self) -> Sequence[TaskStatus]:
        """Return the status of every task of this worker."""
        return [] if self._shards is None else self._shards.statuses()

    def table_reason(self, table: str) -> str | None:
        """Return why a table is not served here, or why its misses are inconclusive; None if neither applies."""
        spec = self._spec(table)
        if table in self.waiting:
            return self._not_served(table, self.waiting[table])
        # While workers count partitions differently, keys may seem misplaced although they are not.
        disagreement = self.disagreements.get(spec.shard_name)
        if disagreement is not None:
            return disagreement
        doubt = self._doubt(spec)
        if doubt is None:
            return None
        return (
            self._not_served(table, doubt)
            if table in self.held
            else f"misses of table {table} are inconclusive: {doubt}"
        )

    def _spec(self, table: str) -> TableSpec:
        """Return the current definition of a table; raises NotOwner if it was removed after the request arrived."""
        spec = self._catalog.current.tables.get(table)
        if spec is None:
            raise NotOwner(f"this worker's catalog no longer has table {table!r}", table=table)
        return spec

    @staticmethod
    def _not_served(table: str, doubt: str | None) -> str:
        return f"table {table} is not served: {doubt}"

    async def count_rows(self) -> None:
        """Make statuses() report exact row counts for tasks with few rows."""
        if self._shards is not None:
            await self._shards.count_rows()

    def _joined_shards(self, table: str) -> Shards:
        if self._shards is None:
            raise NotOwner("this worker has not joined the group yet")
        if table in self.waiting:
            raise NotOwner(self._not_served(table, self.waiting[table]), table=table)
        if table in self.held:
            raise MisplacedKeys(
                self._not_served(table, self._doubt(self._spec(table))),
                retry_after=MISPLACED_RETRY_AFTER,
                table=table,
            )
        return self._shards

    # Writes

    def limit(self, table: str) -> int:
        """Return the maximum record size of a writable table's source in bytes; raises SourceUnavailable."""
        (topic,) = self._spec(table).topics
        return self._writer(table).limit(topic)

    async def append(self, table: str, partition: int, record: ProducerRecord, timeout: float) -> int:  # noqa: ASYNC109
        """Append a record to a writable table's source; raises MisplacedKeys, and as the source writer does."""
        self._require_placed(table, partition)
        return await self._writer(table).append(self._source(table, partition), record, timeout)

    async def append_many(
        self,
        table: str,
        partition: int,
        records: Sequence[ProducerRecord],
        timeout: float,  # noqa: ASYNC109
    ) -> Sequence[int | RequestError]:
        """Append records in order; raises MisplacedKeys, and SourceUnavailable before a broker was reached."""
        self._require_placed(table, partition)
        return await self._writer(table).append_many(self._source(table, partition), records, timeout)

    # Conditional writes, which this worker decides as the owner

    async def catch_up(self, table: str, partition: int, timeout: float) -> SourceEnd:  # noqa: ASYNC109
        """Return the current end of the source, once everything before it is applied here.

        Raises SourceUnavailable while the outcome of an earlier append_as_owner() is unknown, and the same as
        Shards.catch_up().
        """
        shards, loop = self._joined_shards(table), asyncio.get_running_loop()
        until = loop.time() + timeout
        if self._owner_writer is not None:
            await self._owner_writer.settle(self._source(table, partition), timeout)
        return await shards.catch_up(table, partition, max(0.0, until - loop.time()))

    async def append_as_owner(
        self,
        table: str,
        partition: int,
        key: bytes,
        value: bytes | None,
        end: SourceEnd,
        timeout: float,  # noqa: ASYNC109
    ) -> int:
        """Append a record to a writable table's source; raises MisplacedKeys, and as the owner's writer does."""
        self._require_placed(table, partition)
        shards, place = self._joined_shards(table), self._source(table, partition)
        if self._owner_writer is None:
            raise AssertionError("no broker was reached")
        return await self._owner_writer.append(
            table,
            place,
            key,
            value,
            owned=lambda: shards.ownership(table, partition),
            end=end,
            timeout=timeout,
        )

    def _require_placed(self, table: str, partition: int) -> None:
        """Raise MisplacedKeys for a table whose keys are not in the partitions where lookups expect them."""
        doubt = self._doubt(self._spec(table))
        if doubt is not None:
            raise MisplacedKeys(
                f"nothing was written to table {table}, whose keys are not where lookups expect them: {doubt}",
                retry_after=MISPLACED_RETRY_AFTER,
                table=table,
                partition=partition,
            )

    def _source(self, table: str, partition: int) -> TopicPartition:
        (source,) = self._spec(table).inputs(partition)
        return source

    def _writer(self, table: str) -> KafkaSourceWriter:
        if self._source_writer is None:
            raise SourceUnavailable(f"nothing was written to table {table}: this worker has reached no broker yet")
        return self._source_writer
