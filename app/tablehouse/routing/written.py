"""Where the records are that a write has made."""

from dataclasses import dataclass
from typing import NamedTuple

from tablehouse.catalog.spec import TableSpec
from tablehouse.positions import Position


class WrittenRecord(NamedTuple):
    """One record: its partition and offset in the topic, and the name of the input that it is read from."""

    partition: int
    offset: int
    input_name: str

    def __str__(self) -> str:
        return f"{self.input_name}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Written:
    """Where in the table's source the records of a write are, that of the canonical key last."""

    table: str
    records: tuple[WrittenRecord, ...]

    @property
    def text(self) -> str:
        """All of them, as min_position takes it."""
        return ",".join(map(str, self.records))

    @property
    def position(self) -> Position:
        """The position from which on reads see the write."""
        return Position.of((record.input_name, record.offset) for record in self.records)


def written_input(table: TableSpec, partition: int) -> str:
    """Return the name of the input in which the records are that callers write to a partition of a table."""
    (source,) = table.inputs(partition)
    return table.input_name(source)
