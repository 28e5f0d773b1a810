"""Writes of one row: the record that makes it, appended to the table's source topic.

A write changes no table. It is a record like those of any other producer, and the row follows when the partition's
owner has applied it. What a crash leaves:

before the record is sent        nothing was written
sent, not acknowledged           it was written or not, and the caller gets no answer, or one that says so
acknowledged, not yet answered   it was written; a read from its position on sees it
between two tombstones           of a key with several wire forms: as sent, not acknowledged
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from tablehouse.errors import (
    DeadlineExceeded,
    InvalidBody,
    InvalidKey,
    KeySchemaUnknown,
    NotWritable,
    Overloaded,
    PreconditionFailed,
    RequestError,
    SchemaUnavailable,
    UriTooLong,
)
from tablehouse.formats.encoding import Encoder, Record
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.partitioners import partition_of
from tablehouse.formats.values import LARGE_VALUE_BYTES
from tablehouse.formats.variants import Known
from tablehouse.model import Consistency, ProducerRecord
from tablehouse.routing.asking import Asker
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.conditional_writes import ConditionalWrites, Precondition
from tablehouse.routing.query import Query
from tablehouse.routing.schemas import with_schemas, with_schemas_in_turns
from tablehouse.routing.tables import MAX_KEY_BYTES, RoutedTable, partition_count, table_named
from tablehouse.routing.write_check import WriteCheck
from tablehouse.routing.written import Written, WrittenRecord, written_input
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns


class SourceWriter(Protocol):
    """Appends to the source topics of writable tables."""

    def limit(self, table: str) -> int:
        """Return the most bytes that a record may have; raises SourceUnavailable while that is not known."""

    async def append(self, table: str, partition: int, record: ProducerRecord, timeout: float) -> int:  # noqa: ASYNC109
        """Append a record and return its offset, once all in-sync replicas have it.

        Raises MisplacedKeys for a table whose keys do not lie where its partitioner says, PayloadTooLarge for a record
        over the limit, SourceUnavailable when nothing was and will be written, and DeadlineExceeded if that is unknown.
        """

    async def append_many(
        self,
        table: str,
        partition: int,
        records: Sequence[ProducerRecord],
        timeout: float,  # noqa: ASYNC109
    ) -> Sequence[int | RequestError]:
        """Append records in their order; return the offset of each, or what append() would raise.

        Raises MisplacedKeys and SourceUnavailable for all of them.
        """


class Writes:
    """Writes rows; clock is monotonic, in seconds, and deadlines are points on it."""

    def __init__(
        self,
        *,
        tables: Mapping[str, RoutedTable],
        view: ClusterView,
        source: SourceWriter,
        query: Query,
        asker: Asker,
        known: Known,
        clock: Callable[[], float],
        metrics: Metrics,
        turns: Turns,
        conditional: ConditionalWrites,
    ) -> None:
        self._tables = tables
        self._view = view
        self._source = source
        self._query = query
        self.check = WriteCheck(asker, clock)
        self._clock = clock
        self._metrics = metrics
        self._turns = turns
        self._conditional = conditional
        self._schemas = known.schemas

    def is_writable(self, table: str) -> bool:
        """Return whether there is such a table and callers may write to it."""
        routed = self._tables.get(table)
        return routed is not None and routed.encoder is not None

    def content_type(self, table: str) -> str:
        """Return the media type that a row's payload has to be of; raises TableNotFound and NotWritable."""
        return self._encoder(table_named(self._tables, table)).content_type

    def limit(self, table: str) -> int:
        """Return the most bytes that a payload may have; raises SourceUnavailable while that is not known."""
        return self._source.limit(table)

    async def write(
        self,
        table: str,
        key_text: bytes,
        payload: bytes | None,
        *,
        deadline: float,
        request_id: str,
        precondition: Precondition | None = None,
    ) -> Written:
        """Write a row, or with a payload of None delete it, whether there is one or not.

        With a precondition, the partition's owner looks first whether the row that is there is as it says.

        Raises TableNotFound, NotWritable, InvalidKey, UriTooLong and InvalidBody for the question, KeySchemaUnknown and
        SchemaUnavailable without the schemas to write with, Overloaded when a large row was not converted in time,
        PartitionUnassigned before the first assignment, WriteRefused where no read would show the write, what
        SourceWriter.append raises, and with a precondition what ConditionalWrites.write does.
        """
        routed = table_named(self._tables, table)
        record = await self.record(routed, key_text, payload, deadline)
        if precondition is None:
            return await self.append(routed, record, deadline=deadline, request_id=request_id)
        with self._counted(table):
            return await self._conditional.write(
                routed, key_text, record, precondition, deadline=deadline, request_id=request_id
            )

    async def append(self, routed: RoutedTable, record: Record, *, deadline: float, request_id: str) -> Written:
        """Append what record() made; see write() for what it raises."""
        table = routed.spec.name
        written: list[WrittenRecord] = []
        with self._counted(table):
            try:
                count = partition_count(routed, self._view.current)
                for made in record.of_producer:
                    partition = partition_of(routed.spec.source.partitioner, made.key, count)
                    await self.check.require_applied(routed, partition, deadline=deadline, request_id=request_id)
                    left = max(0.0, deadline - self._clock())
                    offset = await self._source.append(table, partition, made, left)
                    written.append(WrittenRecord(partition, offset, written_input(routed.spec, partition)))
            except RequestError as error:
                if written:
                    raise DeadlineExceeded(
                        "the row is deleted under one form of its key and may be there under another: delete it "
                        f"again; {error.detail}",
                        **error.details,
                    ) from None
                raise
        return Written(table, tuple(written))

    @contextmanager
    def _counted(self, table: str) -> Iterator[None]:
        """Count a write by how it ends, and the time that it takes."""
        started, result = self._clock(), "unavailable"
        try:
            yield
            result = "written"
        except PreconditionFailed:
            result = "precondition_failed"
            raise
        except DeadlineExceeded:
            result = "unknown"
            raise
        finally:
            self._metrics.writes.labels(table, result).inc()
        self._metrics.write_duration.labels(table).observe(self._clock() - started)

    def entity_tag(self, written: Written) -> str:
        """Return the entity tag that a row has as it was written."""
        partition, offset, _ = written.records[-1]
        return self._tables[written.table].entity_tag(partition, offset)

    async def visible(
        self, written: Written, key_text: bytes, *, deadline: float, request_id: str, wait: float | None
    ) -> bool:
        """Return whether reads see what was written, after up to `wait` seconds; None is as for Query.read."""
        seen = Consistency(min_position=written.position)
        try:
            await self._query.read(
                written.table, key_text, deadline=deadline, request_id=request_id, consistency=seen, wait=wait
            )
        except RequestError:
            return False
        return True

    @staticmethod
    def _encoder(routed: RoutedTable) -> Encoder:
        table = routed.spec
        if routed.encoder is None:
            raise NotWritable(
                f"table {table.name} cannot be written to: set `writable: true` in its definition, if every "
                f"client of this worker may write to topic {', '.join(table.topics)}",
                table=table.name,
            )
        return routed.encoder

    async def record(self, routed: RoutedTable, key_text: bytes, payload: bytes | None, deadline: float) -> Record:
        """Return the record of a row; raises what write() raises for the question and without schemas."""
        table = routed.spec
        encoder = self._encoder(routed)
        if len(key_text) > MAX_KEY_BYTES:
            raise UriTooLong(
                f"the key has {len(key_text)} bytes, at most {MAX_KEY_BYTES} are allowed", table=table.name
            )
        try:
            left = max(0.0, deadline - self._clock())
            if payload is not None and len(payload) > LARGE_VALUE_BYTES:
                in_pieces = partial(encoder.encode_in_pieces, key_text, payload)
                return await with_schemas_in_turns(self._schemas, in_pieces, left, self._turns)
            return await with_schemas(self._schemas, partial(encoder.encode, key_text, payload), left)
        except (InvalidKey, KeySchemaUnknown, SchemaUnavailable, Overloaded) as error:
            raise type(error)(error.detail, **{"table": table.name, **error.details}) from None
        except DecodeError as error:
            raise InvalidBody(
                f"this is no row of table {table.name}, whose values are {table.source.value}: {error}",
                table=table.name,
            ) from None
