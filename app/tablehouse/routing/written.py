"""Where the records are that a write has made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Written:
    """Where in the table's source a write is: partitions and offsets of its records, that of the canonical key last."""

    table: str
    positions: tuple[tuple[int, int], ...]

    @property
    def position(self) -> str:
        """All of it, as min_position takes it."""
        return ",".join(f"{partition}:{offset}" for partition, offset in self.positions)
