"""The tables of the histories.

A plain one, two whose rows show every lost or repeated record, and one whose rows change as time passes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tablehouse.catalog.spec import FoldSpec, KeySpec, OnError, SourceSpec, TableSpec, ValueSpec
from tablehouse.folds.batches import RowByRow
from tablehouse.folds.fold import FoldRecord, RowFold, Rows
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import NoSchemas, Schemas
from tablehouse.formats.variants import Known
from tablehouse.model import TopicPartition
from tablehouse.stores.rows import Row
from tablehouse.tasks import definitions
from tablehouse.tasks.identity import Identity
from tablehouse.tasks.ingest import TableCodec
from tablehouse.testing.simulated import schemas as model_schemas
from tablehouse.turns import Work
from tests.model.oracle import LAPSE_MS, LAPSED
from tests.support.positions import with_names

#: Keys and values with these prefixes cannot be decoded, or are in the wrong partition.
BAD = b"!"
MISPLACED = b"~"

#: The prefixed keys whose rows lapse.
LAPSING_KEYS = tuple(b"\x01k%d" % number for number in range(6))

#: The partition count that sources report.
PARTITIONS = 4


class Toggle:
    """Each record, or tombstone, creates the row of its key if there is none, and deletes it if there is one."""

    name = "toggle"

    def apply(self, row: Row | None, record: FoldRecord, stream_time: int) -> bytes | None:  # noqa: ARG002
        """See RowFold."""
        return b"on" if row is None else None

    def pass_time(self, stream_time: int, rows: Rows) -> Mapping[bytes, bytes | None]:  # noqa: ARG002
        """See RowFold."""
        return {}


class Lapse:
    """The row of a key is its latest value, and is marked as lapsed once stream time is LAPSE_MS past it."""

    name = "lapse"

    def apply(self, row: Row | None, record: FoldRecord, stream_time: int) -> bytes | None:  # noqa: ARG002
        """See RowFold."""
        return record.payload

    def pass_time(self, stream_time: int, rows: Rows) -> Mapping[bytes, bytes | None]:
        """See RowFold."""
        found = {key: rows(key) for key in LAPSING_KEYS}
        return {
            key: LAPSED
            for key, row in found.items()
            if row is not None and row.payload != LAPSED and row.timestamp_ms + LAPSE_MS <= stream_time
        }


@dataclass(frozen=True, slots=True)
class Spec(TableSpec):
    """A stand-in for the TableSpec of a table."""

    table: "Table | None" = None
    schemas: Schemas = field(default_factory=NoSchemas, hash=False)


#: The folds that a definition can name in addition to that of a plain table, and those that only exist in histories.
AGGREGATES = {"count": FoldSpec("count")}
OF_HISTORIES: Mapping[str, Callable[[], RowFold]] = {"toggle": Toggle, "lapse": Lapse}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a history; its fold is its name up to the first dash. One named `*-bytes` needs no schemas."""

    name: str
    version: str = "1"
    on_error: OnError = "dead_letter"

    @property
    def fold(self) -> str:
        """Return the fold's name."""
        return self.name.partition("-")[0]

    def changelog(self, source: TopicPartition) -> TopicPartition:
        """Return the changelog partition of a source partition."""
        return TopicPartition(f"{source.topic}-{self.name}", source.partition)

    def identity(self, source: TopicPartition) -> Identity:
        """Return the identity of the task of a source partition."""
        return Identity(
            self.name, self.changelog(source), {"fold": self.fold, "version": self.version}, with_names(source)
        )

    def spec(self, topic: str, schemas: Schemas) -> Spec:
        """Return the table's stand-in for a TableSpec."""
        source = _source_spec(topic, self.on_error)
        return Spec(self.name, source, aggregate=AGGREGATES.get(self.fold), table=self, schemas=schemas)

    def codec(self, source: TopicPartition, schemas: Schemas | None = None) -> TableCodec:
        """Return the table's codec."""
        decode_value = _decode_value
        if schemas is not None and not self.name.endswith("-bytes"):
            decode_value = partial(_decode_framed, schemas)

        def decode_in_pieces(value: bytes, headers: Sequence[tuple[str, bytes]]) -> Work[bytes]:
            decoded: bytes = yield partial(decode_value, value, headers)
            return decoded

        real = definitions.codec_of(
            self.spec(source.topic, NoSchemas()), source.partition, PARTITIONS, Known(NoSchemas())
        )
        return replace(
            real,
            store_key=_store_key,
            decode_value=decode_value,
            misplaced=_misplaced,
            suspicion=None,
            decode_in_pieces=decode_in_pieces,
            fold=RowByRow(OF_HISTORIES[self.fold]()) if self.fold in OF_HISTORIES else real.fold,
        )


def identity_of(group: str, spec: TableSpec, partition: int, partitions: int) -> Identity:
    """Replace identity_of of app/tablehouse/tasks/definitions.py."""
    del group, partitions
    return _table(spec).identity(TopicPartition(spec.source.topic, partition))


def codec_of(spec: TableSpec, partition: int, partitions: int, known: Known) -> TableCodec:
    """Replace codec_of of app/tablehouse/tasks/definitions.py."""
    del partitions, known
    return _table(spec).codec(
        TopicPartition(spec.source.topic, partition), spec.schemas if isinstance(spec, Spec) else None
    )


def _table(spec: TableSpec) -> Table:
    if not isinstance(spec, Spec) or spec.table is None:
        raise AssertionError(f"{spec.name} is not a table of a simulation")
    return spec.table


def _store_key(wire: bytes, _: Sequence[tuple[str, bytes]]) -> bytes:
    if wire.startswith(BAD):
        raise DecodeError("a bad key")
    return wire


def _decode_value(value: bytes, _: Sequence[tuple[str, bytes]]) -> bytes:
    if value.startswith(BAD):
        raise DecodeError("a bad value")
    return value


def _decode_framed(schemas: Schemas, value: bytes, headers: Sequence[tuple[str, bytes]]) -> bytes:
    return model_schemas.decode(schemas, _decode_value(value, headers))


def _source_spec(topic: str, on_error: OnError) -> SourceSpec:
    return SourceSpec(topic, KeySpec("bytes"), ValueSpec("bytes"), on_error=on_error)


def _misplaced(wires: Sequence[bytes]) -> int | None:
    return next((index for index, wire in enumerate(wires) if wire.startswith(MISPLACED)), None)
