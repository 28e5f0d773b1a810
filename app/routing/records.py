"""A row to write as records of its table's source, and where they are once they are written."""

from dataclasses import dataclass
from typing import NamedTuple


class Record(NamedTuple):
    """What makes a row, or with a value of None deletes it: its key in every wire form, the canonical one first."""

    wires: tuple[bytes, ...]
    value: bytes | None

    @property
    def is_spread(self) -> bool:
        """Return whether it takes records in several places: a deleted row may lie under any form of its key."""
        return self.value is None and len(self.wires) > 1


@dataclass(frozen=True, slots=True)
class Written:
    """Where in the table's source a write is: partitions and offsets of its records, that of the canonical key last."""

    table: str
    positions: tuple[tuple[int, int], ...]

    @property
    def position(self) -> str:
        """All of it, as min_position takes it."""
        return ",".join(f"{partition}:{offset}" for partition, offset in self.positions)
