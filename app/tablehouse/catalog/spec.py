"""What a tables.yaml says, as frozen values; load.py is what makes them from a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tablehouse.model import ShardId, TopicPartition

KeyFormatName = Literal["string", "bytes", "int", "long", "uuid", "json", "avro", "json_sr", "json_connect"]
ValueFormatName = Literal["json", "string", "bytes", "avro", "protobuf", "json_sr", "json_connect"]
PartitionerName = Literal["murmur2", "crc32", "fnv1a", "fnv1a_reference", "kafkajs_legacy"]
SpellingName = Literal["compact", "jackson", "gson", "go", "python", "python_compact", "php"]
#: `any` stands for producers that put a key into any partition.
Partitioner = Literal[PartitionerName, "any"]
Framing = Literal["registry", "single_object", "none"]
Envelope = Literal["none", "debezium", "outbox"]
OnError = Literal["dead_letter", "skip", "stop"]
FoldName = Literal["upsert", "marked_upsert", "count"]

#: How JSON keys are written where a definition does not say: by most serialisers, and by Java's.
DEFAULT_SPELLINGS: tuple[SpellingName, ...] = ("compact", "jackson")

#: Keys that can be structures of several members.
STRUCTURED_KEYS: frozenset[KeyFormatName] = frozenset({"json", "avro", "json_sr", "json_connect"})

#: Formats of keys whose JSON producers spell in ways that a definition may name. Kafka Connect has one.
SPELLED_KEYS: frozenset[KeyFormatName] = frozenset({"json", "json_sr"})

#: Values that can be structures of members, which envelopes and columns take apart.
STRUCTURED_VALUES: frozenset[ValueFormatName] = frozenset({"json", "avro", "protobuf", "json_sr", "json_connect"})

#: Formats whose records name their schema by an id of the schema registry.
REGISTRY_FORMATS: frozenset[str] = frozenset({"avro", "protobuf", "json_sr"})

#: How many standbys a table has whose definition does not say.
DEFAULT_STANDBYS = 1


@dataclass(frozen=True, slots=True)
class KeySpec:
    """How the keys of a source topic are written.

    `fields` are the members of a structured key in the order in which the producer writes them; empty for every other
    format, and for a key that is one scalar. `bare` is set for a key of one member if only its value is in a URL.
    `spellings` are the ways in which producers write JSON, of SPELLED_KEYS alone; the first is that of rows that
    callers write.
    """

    format: KeyFormatName
    fields: tuple[str, ...] = ()
    bare: bool = False
    spellings: tuple[SpellingName, ...] = DEFAULT_SPELLINGS

    def __str__(self) -> str:
        return f"{self.format}({', '.join(self.fields)})" if self.fields else self.format


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """A schema in a separate file; `text` is what was in it when the definition was read."""

    path: Path = field(compare=False)
    text: str


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """How the values of a source topic are written.

    `framing`, `schema` and `subject` are of format avro alone. `schema` is the one that rows have: the latest of a
    subject in the registry, the one that each record was written with, one of the registry by id, or a file. `subject`
    is of the latest; without it, it is that of the topic.
    """

    format: ValueFormatName
    framing: Framing = "registry"
    schema: Literal["latest", "written"] | int | SchemaFile = "latest"
    subject: str | None = None

    def __str__(self) -> str:
        return self.format


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source topic, and how to read what is in it.

    `envelope` is what the producer wraps rows in, `on_error` what happens to a record that cannot be a row.
    """

    topic: str
    key: KeySpec
    value: ValueSpec
    partitioner: Partitioner = "murmur2"
    envelope: Envelope = "none"
    on_error: OnError = "dead_letter"

    @property
    def needs_registry(self) -> bool:
        """Whether records of this source can be read only with the schemas of a registry."""
        value = self.value.format in REGISTRY_FORMATS and self.value.framing == "registry"
        return value or self.key.format in REGISTRY_FORMATS or isinstance(self.value.schema, int)


@dataclass(frozen=True, slots=True)
class FoldSpec:
    """How the records of a key become its row. All of it is part of the table's fingerprint.

    `upsert` keeps the latest record, `marked_upsert` too and a mark where that is a tombstone, `count` their number.
    """

    name: FoldName = "upsert"


#: The folds of tables that aggregate nothing: where keys have one partition, and where they may be in any.
UPSERT, MARKED_UPSERT = FoldSpec("upsert"), FoldSpec("marked_upsert")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table.

    `columns` maps each member of a row to the member of the source's value it is taken from, in the order in
    which rows show them; None keeps the value as it is. A member that begins with `$` is the envelope's: `$op`,
    `$source.ts_ms`, `$headers.eventType`. `version` is 1 unless the table was ever redefined. `standbys`
    is how many workers besides the owner should keep a copy of each row. `writable` lets callers write to the source
    topic. `aggregate` is the fold of a table that keeps more than the latest record of a key; tables.yaml has no field
    for it yet.
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
        """What the table's shards are called, together with those of every table that is placed with it."""
        return self.source.topic

    def shard(self, partition: int) -> ShardId:
        """Return the shard that holds a partition of the table."""
        return ShardId(self.shard_name, partition)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the table is made from."""
        return (self.source.topic,)

    def inputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return what a task of the table reads: one partition of each source."""
        return tuple(TopicPartition(topic, partition) for topic in self.topics)

    def input_name(self, source: TopicPartition) -> str:
        """Return the name of an input in positions, as callers see them.

        It is the partition, and if the table is made from several topics, the topic and the partition.
        """
        return str(source.partition) if len(self.topics) == 1 else f"{source.topic}/{source.partition}"

    @property
    def log_name(self) -> str:
        """What names the table's changelog after the group; no two tables of a catalog have the same."""
        return self.name if self.version == 1 else f"{self.name}-v{self.version}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tables of a worker by name, in the order of the file."""

    tables: Mapping[str, TableSpec] = field(hash=False)

    @property
    def topics(self) -> tuple[str, ...]:
        """The source topics, each once, in the order in which the file first names them."""
        return tuple(dict.fromkeys(topic for table in self.tables.values() for topic in table.topics))

    @property
    def shard_names(self) -> tuple[str, ...]:
        """The names of the tables' shards, each once, in the order of the file."""
        return tuple(dict.fromkeys(table.shard_name for table in self.tables.values()))

    @property
    def standbys(self) -> dict[str, int]:
        """How many standbys the shards of each name have: as many as the table with the most among theirs."""
        return {name: max(table.standbys for table in self.tables_in(name)) for name in self.shard_names}

    def tables_in(self, shard_name: str) -> tuple[TableSpec, ...]:
        """Return the tables that have a task in each shard of a name; empty when none has."""
        return tuple(table for table in self.tables.values() if table.shard_name == shard_name)

    def tables_of(self, topic: str) -> tuple[TableSpec, ...]:
        """Return the tables that read `topic`; empty when none does."""
        return tuple(table for table in self.tables.values() if topic in table.topics)
