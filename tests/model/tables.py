"""The tables of the histories: a plain one, and two whose rows betray every lost or doubled record."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from tablehouse.catalog.spec import KeySpec, OnError, SourceSpec, TableSpec, ValueSpec
from tablehouse.folds.fold import Decoded, Fold, Lookup
from tablehouse.folds.upsert import Upsert
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import NoSchemas, Schemas
from tablehouse.formats.variants import Known
from tablehouse.model import TopicPartition
from tablehouse.stores.rows import HEAD_SIZE, LAYOUT_VERSION, pack_head
from tablehouse.tasks.ingest import TableCodec
from tablehouse.tasks.replay import Identity
from tablehouse.testing.simulated import schemas as model_schemas
from tablehouse.turns import Work

#: Keys and values that begin so cannot be decoded, or lie in the wrong partition.
BAD = b"!"
MISPLACED = b"~"


class Count:
    """The row of a key says how many records it had; a tombstone deletes the row, and counting starts anew."""

    name = "count"

    def __call__(self, records: Sequence[Decoded], lookup: Lookup) -> dict[bytes, bytes | None]:
        """See Fold."""
        rows: dict[bytes, bytes | None] = {}
        for key, payload, timestamp, offset in records:
            before = rows[key] if key in rows else lookup(key)
            count = 0 if before is None else int(before[HEAD_SIZE:])
            head = pack_head(LAYOUT_VERSION, 0, timestamp, offset)
            rows[key] = None if payload is None else head + b"%d" % (count + 1)
        return rows


class Toggle:
    """A record makes the row of its key when there is none, and deletes it when there is one; so does a tombstone."""

    name = "toggle"

    def __call__(self, records: Sequence[Decoded], lookup: Lookup) -> dict[bytes, bytes | None]:
        """See Fold."""
        rows: dict[bytes, bytes | None] = {}
        for key, _, timestamp, offset in records:
            before = rows[key] if key in rows else lookup(key)
            head = pack_head(LAYOUT_VERSION, 0, timestamp, offset)
            rows[key] = head + b"on" if before is None else None
        return rows


@dataclass(frozen=True, slots=True)
class Spec(TableSpec):
    """What stands for a table in a catalog."""

    table: "Table | None" = None
    schemas: Schemas = field(default_factory=NoSchemas, hash=False)


FOLDS: dict[str, type[Fold]] = {"upsert": Upsert, "count": Count, "toggle": Toggle}


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
        """Return the changelog partition that belongs to a source partition."""
        return TopicPartition(f"{source.topic}-{self.name}", source.partition)

    def identity(self, source: TopicPartition) -> Identity:
        """Return what the task is."""
        return Identity(self.name, self.changelog(source), {"fold": self.fold, "version": self.version})

    def spec(self, topic: str, schemas: Schemas) -> Spec:
        """Return what stands for it in a catalog."""
        return Spec(self.name, _source_spec(topic), table=self, schemas=schemas)

    def codec(self, source: TopicPartition, schemas: Schemas | None = None) -> TableCodec:
        """Return how its records are read."""
        decode_value = _decode_value
        if schemas is not None and not self.name.endswith("-bytes"):
            decode_value = partial(_decode_framed, schemas)

        def decode_in_pieces(value: bytes, headers: Sequence[tuple[str, bytes]]) -> Work[bytes]:
            decoded: bytes = yield partial(decode_value, value, headers)
            return decoded

        return TableCodec(
            source,
            _store_key,
            decode_value,
            _misplaced,
            FOLDS[self.fold](),
            _source_spec(source.topic),
            4,
            on_error=self.on_error,
            decode_in_pieces=decode_in_pieces,
        )


def identity_of(group: str, spec: TableSpec, partition: int, partitions: int) -> Identity:
    """Stand in for the one in app/tablehouse/tasks/definitions.py."""
    del group, partitions
    return _table(spec).identity(TopicPartition(spec.source.topic, partition))


def codec_of(spec: TableSpec, partition: int, partitions: int, known: Known) -> TableCodec:
    """Stand in for the one in app/tablehouse/tasks/definitions.py, which knows no other fold than Upsert."""
    del partitions, known
    return _table(spec).codec(
        TopicPartition(spec.source.topic, partition), spec.schemas if isinstance(spec, Spec) else None
    )


def _table(spec: TableSpec) -> Table:
    if not isinstance(spec, Spec) or spec.table is None:
        raise AssertionError(f"{spec.name} is no table of a simulation")
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


def _source_spec(topic: str) -> SourceSpec:
    return SourceSpec(topic, KeySpec("bytes"), ValueSpec("bytes"))


def _misplaced(wires: Sequence[bytes]) -> int | None:
    return next((index for index, wire in enumerate(wires) if wire.startswith(MISPLACED)), None)
