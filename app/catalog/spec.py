"""What a tables.yaml says, as frozen values; load.py is what makes them from a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

KeyFormatName = Literal["string", "bytes", "int", "long", "uuid", "json"]
ValueFormatName = Literal["json", "string", "bytes"]
PartitionerName = Literal["murmur2", "crc32"]

#: How many standbys a table has whose definition does not say.
DEFAULT_STANDBYS = 1


@dataclass(frozen=True, slots=True)
class KeySpec:
    """How the keys of a source topic are written.

    `fields` are the members of a json key in the order in which the producer writes them; empty for every
    other format, and for a json key that is one scalar.
    """

    format: KeyFormatName
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.format}({', '.join(self.fields)})" if self.fields else self.format


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source topic, and how to read what is in it."""

    topic: str
    key: KeySpec
    value: ValueFormatName
    partitioner: PartitionerName = "murmur2"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table.

    `columns` maps each member of a row to the member of the source's value it is taken from, in the order in
    which rows show them; None keeps the value as it is. `version` is 1 unless the table was ever redefined. `standbys`
    is how many workers besides the owner should keep a copy of each row.
    """

    name: str
    source: SourceSpec
    description: str = ""
    columns: Mapping[str, str] | None = field(default=None, hash=False)
    version: int = 1
    standbys: int = DEFAULT_STANDBYS

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
        return tuple(dict.fromkeys(table.source.topic for table in self.tables.values()))

    @property
    def standbys(self) -> dict[str, int]:
        """How many standbys the shards of each source topic have: as many as its table with the most."""
        return {topic: max(table.standbys for table in self.tables_of(topic)) for topic in self.topics}

    def tables_of(self, topic: str) -> tuple[TableSpec, ...]:
        """Return the tables that read `topic`; empty when none does."""
        return tuple(table for table in self.tables.values() if table.source.topic == topic)
