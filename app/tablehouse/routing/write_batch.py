"""Writes of many rows of one table at once: the records of each partition are appended together, in their order.

A batch goes through in windows, so that what is held of it does not grow with it. Rows of one key keep their order:
windows follow each other, a key has one partition, and a partition's records go through one producer. A deleted row
that may lie under several forms of its key takes records in several partitions: all that a window has of that key is
written one after the other. Where the outcome of a record is unknown it may be written later, so nothing more of the
batch is written to its partition.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tablehouse.errors import DeadlineExceeded, RequestError, SourceUnavailable
from tablehouse.formats.encoding import Record
from tablehouse.formats.partitioners import partition_of
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.tables import RoutedTable, partition_count, table_named
from tablehouse.routing.writes import SourceWriter, Writes
from tablehouse.routing.written import Written, WrittenRecord, written_input
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns

#: Rows, and the bytes of their payloads, that are written together.
WINDOW_ROWS = 512
WINDOW_BYTES = 1 << 20

#: Rows made into records in one go, at some 10 us each.
_ROWS_PER_TURN = 64

#: Partitions, and keys with several forms, that are written to at the same time.
_AT_ONCE = 16


class Entry(NamedTuple):
    """A row to write, by its key as percent-decoded text; a payload of None deletes it."""

    key_text: bytes
    payload: bytes | None


Outcome = Written | RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What batches work with."""

    view: ClusterView
    source: SourceWriter
    writes: Writes
    clock: Callable[[], float]
    metrics: Metrics
    turns: Turns


class WriteBatches:
    """Writes batches; clock is monotonic, in seconds, and deadlines are points on it."""

    def __init__(
        self,
        *,
        tables: Mapping[str, RoutedTable],
        view: ClusterView,
        source: SourceWriter,
        writes: Writes,
        clock: Callable[[], float],
        metrics: Metrics,
        turns: Turns,
    ) -> None:
        self._tables = tables
        self._parts = _Parts(view=view, source=source, writes=writes, clock=clock, metrics=metrics, turns=turns)

    async def write(
        self, table: str, entries: Iterable[Entry | RequestError], *, deadline: float, request_id: str
    ) -> Sequence[Outcome]:
        """Write rows, given as entries or as why they are none, and return each outcome, as Writes.write does.

        Raises TableNotFound, and PartitionUnassigned before the first assignment. Whatever concerns single rows, or
        happens once some are written, is among the outcomes.
        """
        routed = table_named(self._tables, table)
        partition_count(routed, self._parts.view.current)
        batch = _Batch(self._parts, routed, deadline, request_id)
        window: list[Entry | RequestError] = []
        size = 0
        for entry in entries:
            window.append(entry)
            size += len(entry.payload or b"") if isinstance(entry, Entry) else 0
            if len(window) >= WINDOW_ROWS or size >= WINDOW_BYTES:
                await batch.write(window)
                window, size = [], 0
            elif len(window) % _ROWS_PER_TURN == 0:
                await self._parts.turns.wait()
        await batch.write(window)
        return batch.outcomes


class _Batch:
    """One batch on its way; outcomes are those of the rows so far."""

    def __init__(self, parts: _Parts, routed: RoutedTable, deadline: float, request_id: str) -> None:
        self.outcomes: list[Outcome] = []
        self._parts = parts
        self._routed = routed
        self._deadline = deadline
        self._request_id = request_id
        self._gate = asyncio.Semaphore(_AT_ONCE)
        #: Partitions in which the outcome of a record is not known.
        self._unknown: set[int] = set()

    async def write(self, window: Sequence[Entry | RequestError]) -> None:
        """Write some rows, and add their outcomes."""
        found: dict[int, Outcome] = {}
        records: dict[int, Record] = {}
        for index, entry in enumerate(window):
            if index % _ROWS_PER_TURN == 0:
                await self._parts.turns.wait()
            made = entry if isinstance(entry, RequestError) else await self._record(entry)
            if isinstance(made, RequestError):
                found[index] = made
            else:
                records[index] = made
        try:
            count = partition_count(self._routed, self._parts.view.current)
        except RequestError as error:
            found |= dict.fromkeys(records, error)
        else:
            found |= await self._append(records, count)
        self.outcomes += [found[index] for index in range(len(window))]

    async def _record(self, entry: Entry) -> Record | RequestError:
        try:
            return await self._parts.writes.record(self._routed, entry.key_text, entry.payload, self._deadline)
        except RequestError as error:
            return error

    async def _append(self, records: Mapping[int, Record], count: int) -> Mapping[int, Outcome]:
        """Append records, given by their places in the window, and return their outcomes."""
        partitioner = self._routed.spec.source.partitioner
        # A schema that was learnt in between gives a key another first form, and so another partition.
        first: dict[bytes, bytes] = {}
        spread = {
            record.key.stored
            for record in records.values()
            if record.is_spread or first.setdefault(record.key.stored, record.wires[0]) != record.wires[0]
        }
        keys: dict[bytes, list[int]] = {}
        partitions: dict[int, list[int]] = {}
        for index, record in records.items():
            if record.key.stored in spread:
                keys.setdefault(record.key.stored, []).append(index)
            else:
                partitions.setdefault(partition_of(partitioner, record.wires[0], count), []).append(index)
        refused = await self._parts.writes.check.refusals(
            self._routed, partitions, deadline=self._deadline, request_id=self._request_id
        )
        found: dict[int, Outcome] = {}
        async with asyncio.TaskGroup() as tasks:
            for partition, indexes in partitions.items():
                if partition in refused:
                    found |= dict.fromkeys(indexes, self._counted(refused[partition], len(indexes)))
                    continue
                tasks.create_task(self._append_to_partition(partition, indexes, records, found))
            for indexes in keys.values():
                tasks.create_task(self._append_in_turn(indexes, records, found, count))
        return found

    async def _append_to_partition(
        self, partition: int, indexes: Sequence[int], records: Mapping[int, Record], found: dict[int, Outcome]
    ) -> None:
        """Append records of one partition together."""
        parts, table = self._parts, self._routed.spec.name
        input_name = written_input(self._routed.spec, partition)
        async with self._gate:
            if partition in self._unknown:
                found |= dict.fromkeys(indexes, self._counted(_held_up(table, partition), len(indexes)))
                return
            started = parts.clock()
            appended = [records[index].of_producer[0] for index in indexes]
            try:
                results = await parts.source.append_many(table, partition, appended, max(0.0, self._deadline - started))
            except RequestError as error:
                found |= dict.fromkeys(indexes, self._counted(error, len(indexes)))
                return
            parts.metrics.write_duration.labels(table).observe(parts.clock() - started)
        for index, result in zip(indexes, results, strict=True):
            if isinstance(result, RequestError):
                found[index] = self._counted(result, 1)
                if isinstance(result, DeadlineExceeded):
                    self._unknown.add(partition)
            else:
                found[index] = Written(table, (WrittenRecord(partition, result, input_name),))
        written = sum(not isinstance(result, RequestError) for result in results)
        parts.metrics.writes.labels(table, "written").inc(written)

    async def _append_in_turn(
        self, indexes: Sequence[int], records: Mapping[int, Record], found: dict[int, Outcome], count: int
    ) -> None:
        """Append the records of one key one after the other; each may take records in several partitions."""
        partitioner, table = self._routed.spec.source.partitioner, self._routed.spec.name
        async with self._gate:
            for index in indexes:
                record = records[index]
                places = {partition_of(partitioner, wire, count) for wire in record.wires}
                unknown = places & self._unknown
                if unknown:
                    found[index] = self._counted(_held_up(table, min(unknown)), 1)
                    continue
                try:
                    found[index] = await self._parts.writes.append(
                        self._routed, record, deadline=self._deadline, request_id=self._request_id
                    )
                except RequestError as error:
                    found[index] = error
                    if isinstance(error, DeadlineExceeded):
                        self._unknown |= places

    def _counted(self, error: RequestError, rows: int) -> RequestError:
        """Count rows that have an error, and return it."""
        result = "unknown" if isinstance(error, DeadlineExceeded) else "unavailable"
        self._parts.metrics.writes.labels(self._routed.spec.name, result).inc(rows)
        return error


def _held_up(table: str, partition: int) -> SourceUnavailable:
    return SourceUnavailable(
        f"nothing was written to partition {partition} of table {table}: the outcome of an earlier row of the batch is "
        "not known, and it may be written later",
        table=table,
        partition=partition,
    )
