"""The contents of a tables.yaml as frozen values; load.py creates them from a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tablehouse.model import ShardId, TopicPartition

KeyFormatName = Literal["string", "bytes", "int", "long", "uuid", "json", "avro", "json_sr", "json_connect"]
ValueFormatName = Literal["json", "string", "bytes", "avro", "protobuf", "json_sr", "json_connect"]
PartitionerName = Literal["murmur2", "crc32", "fnv1a", "fnv1a_reference", "kafkajs_legacy"]
SpellingName = Literal["compact", "jackson", "gson", "go", "python", "python_compact", "php"]
#: `any` is for producers that may put a key into any partition.
Partitioner = Literal[PartitionerName, "any"]
Framing = Literal["registry", "single_object", "none"]
Envelope = Literal["none", "debezium", "outbox"]
OnError = Literal["dead_letter", "skip", "stop"]
FoldName = Literal["upsert", "marked_upsert", "count"]

#: The default spellings of JSON keys: those of most serializers, and of Jackson in Java.
DEFAULT_SPELLINGS: tuple[SpellingName, ...] = ("compact", "jackson")

#: Keys that can be structures of several members.
STRUCTURED_KEYS: frozenset[KeyFormatName] = frozenset({"json", "avro", "json_sr", "json_connect"})

#: Key formats whose spellings a definition may list. Kafka Connect only writes one.
SPELLED_KEYS: frozenset[KeyFormatName] = frozenset({"json", "json_sr"})

#: Values that can be structures of members, which envelopes and columns can use.
STRUCTURED_VALUES: frozenset[ValueFormatName] = frozenset({"json", "avro", "protobuf", "json_sr", "json_connect"})

#: Formats whose records name their schema by an id of the schema registry.
REGISTRY_FORMATS: frozenset[str] = frozenset({"avro", "protobuf", "json_sr"})

#: The default number of standbys of a table.
DEFAULT_STANDBYS = 1


@dataclass(frozen=True, slots=True)
class KeySpec:
    """The format of a source topic's keys.

    `fields` are the members of a structured key in the order in which the producer writes them; empty for other formats
    and for a single scalar. `bare` is set for a key of one member if URLs contain only its value. `spellings`, only for
    SPELLED_KEYS, are the ways in which producers write JSON; rows that callers write have the first.
    """

    format: KeyFormatName
    fields: tuple[str, ...] = ()
    bare: bool = False
    spellings: tuple[SpellingName, ...] = DEFAULT_SPELLINGS

    def __str__(self) -> str:
        return f"{self.format}({', '.join(self.fields)})" if self.fields else self.format


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """A schema in a separate file; `text` is its contents when the definition was read."""

    path: Path = field(compare=False)
    text: str


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """The format of a source topic's values.

    `framing`, `schema` and `subject` are only for format avro. `schema` is the one of the rows: the latest of a subject
    in the registry, the one that each record was written with, one of the registry by id, or a file. `subject` is the
    subject of `latest`, by default the topic's.
    """

    format: ValueFormatName
    framing: Framing = "registry"
    schema: Literal["latest", "written"] | int | SchemaFile = "latest"
    subject: str | None = None

    def __str__(self) -> str:
        return self.format


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source topic, and how to read its records.

    `envelope` is the format in which the producer wraps rows, `on_error` what happens to a record that cannot become a
    row.
    """

    topic: str
    key: KeySpec
    value: ValueSpec
    partitioner: Partitioner = "murmur2"
    envelope: Envelope = "none"
    on_error: OnError = "dead_letter"

    @property
    def needs_registry(self) -> bool:
        """Whether reading this source requires a schema registry."""
        value = self.value.format in REGISTRY_FORMATS and self.value.framing == "registry"
        return value or self.key.format in REGISTRY_FORMATS or isinstance(self.value.schema, int)


@dataclass(frozen=True, slots=True)
class FoldSpec:
    """How the records of a key become its row; part of the table's fingerprint.

    `upsert` keeps the latest record, `marked_upsert` also a mark if that is a tombstone, and `count` the number of
    records.
    """

    name: FoldName = "upsert"


#: The folds of tables without an aggregate: if a key is always in the same partition, and if it may be in any.
UPSERT, MARKED_UPSERT = FoldSpec("upsert"), FoldSpec("marked_upsert")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table.

    `columns` maps each member of a row to the member of the source's value that it is taken from, in the order of the
    row; None keeps the value unchanged. A member that begins with `$` belongs to the envelope: `$op`, `$source.ts_ms`,
    `$headers.eventType`. `version` is 1 unless the table was redefined. `standbys` is the number of workers that should
    keep a copy of each row, in addition to the owner. `writable` lets callers write to the source topic. `aggregate` is
    the fold of a table that keeps more than the latest record of a key; tables.yaml has no field for it yet.
    """

    name: str
    source: SourceSpec
    description: str = ""
    columns: Mapping[str, str] | None = field(default=None, hash=False)
    version: int = 1
    standbys: int = DEFAULT_STANDBYS
    writable: bool = False
    aggregate: FoldSpec | None = None

    @property
    def fold(self) -> FoldSpec:
        """How the records of a key become its row."""
        if self.aggregate is not None:
            return self.aggregate
        return MARKED_UPSERT if self.source.partitioner == "any" else UPSERT

    @property
    def shard_name(self) -> str:
        """The name of the table's shards, shared by all tables that are placed together."""
        return self.source.topic

    def shard(self, partition: int) -> ShardId:
        """Return the shard that holds a partition of the table."""
        return ShardId(self.shard_name, partition)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the table is made from."""
        return (self.source.topic,)

    def inputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the partitions that a task of the table reads: one of each source."""
        return tuple(TopicPartition(topic, partition) for topic in self.topics)

    def input_name(self, source: TopicPartition) -> str:
        """Return the name of an input in positions, as callers see them.

        It is the partition, and if the table is made from several topics, the topic and the partition.
        """
        return str(source.partition) if len(self.topics) == 1 else f"{source.topic}/{source.partition}"

    @property
    def log_name(self) -> str:
        """The table's part of its changelog's name, after the group; unique within a catalog."""
        return self.name if self.version == 1 else f"{self.name}-v{self.version}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tables of a worker by name, in the order of the file."""

    tables: Mapping[str, TableSpec] = field(hash=False)

    @property
    def topics(self) -> tuple[str, ...]:
        """The distinct source topics, in the order of the file."""
        return tuple(dict.fromkeys(topic for table in self.tables.values() for topic in table.topics))

    @property
    def shard_names(self) -> tuple[str, ...]:
        """The distinct names of the tables' shards, in the order of the file."""
        return tuple(dict.fromkeys(table.shard_name for table in self.tables.values()))

    @property
    def standbys(self) -> dict[str, int]:
        """The number of standbys of each shard name: the highest among its tables."""
        return {name: max(table.standbys for table in self.tables_in(name)) for name in self.shard_names}

    def tables_in(self, shard_name: str) -> tuple[TableSpec, ...]:
        """Return the tables that have a task in the shards of a name."""
        return tuple(table for table in self.tables.values() if table.shard_name == shard_name)

    def tables_of(self, topic: str) -> tuple[TableSpec, ...]:
        """Return the tables that read a topic."""
        return tuple(table for table in self.tables.values() if topic in table.topics)
