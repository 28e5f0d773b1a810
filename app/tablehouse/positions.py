"""Positions: how far a task has applied each of its inputs, and how far callers require it."""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Self

import msgspec

_NAME = re.compile(r"(?:[a-zA-Z0-9._-]{1,249}/)?[0-9]{1,9}")
_ENTRY = re.compile(r"((?:[a-zA-Z0-9._-]{1,249}/)?[0-9]{1,9}):(-1|[0-9]{1,18})")


class Position(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """The last offset of each input, inclusive; -1 before the first.

    `names` are those by which callers know the inputs (TableSpec.input_name): the partition, like `2`, for a table of
    one topic, and `orders/2` for one of several. A task's position has all inputs of the task, in the order of
    TableSpec.inputs; a position that a caller requires has any.
    """

    names: tuple[str, ...]
    offsets: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for what is no position, since it may come from another worker, and goes into headers."""
        if len(self.names) != len(self.offsets) or not all(map(_NAME.fullmatch, self.names)):
            raise ValueError(f"not a position: {self.names!r:.100} at {self.offsets!r:.100}")

    @cached_property
    def text(self) -> str:
        """The value of a Tablehouse-Position header, made once, since every answer to a read has it."""
        return ",".join(map("{}:{}".format, self.names, self.offsets))

    @classmethod
    def of(cls, entries: Iterable[tuple[str, int]]) -> Self:
        """Make a position of names and offsets; of several offsets of one input, the highest counts."""
        highest: dict[str, int] = {}
        for name, offset in entries:
            highest[name] = max(offset, highest.get(name, offset))
        return cls(tuple(highest), tuple(highest.values()))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a text back; raises ValueError for one that no position has."""
        only = _ENTRY.fullmatch(text)
        if only is not None:
            return cls((only[1],), (int(only[2]),))
        found = [_ENTRY.fullmatch(entry) for entry in text.split(",")]
        entries = [(match[1], int(match[2])) for match in found if match is not None]
        if len(entries) != len(found):
            raise ValueError(f"not a position: {text[:100]!r}")
        return cls.of(entries)

    @classmethod
    def from_json(cls, partition: int, value: object) -> Self:
        """Read back what in_json() returned for a partition; raises ValueError for anything else."""
        if isinstance(value, int):
            return cls((str(partition),), (value,))
        if isinstance(value, str):
            return cls.parse(value)
        raise ValueError(f"not a position: {value!r}")

    def in_json(self, partition: int) -> int | str:
        """Return the form in JSON: the offset if the only input has the partition as its name, otherwise the text."""
        return self.offsets[0] if self.names == (str(partition),) else self.text

    @property
    def entries(self) -> Iterable[tuple[str, int]]:
        """The names with their offsets."""
        return zip(self.names, self.offsets, strict=True)

    @property
    def total(self) -> int:
        """How far all inputs are together, to compare copies of one partition: the offset if there is one input.

        It is -1 when nothing is applied.
        """
        return sum(self.offsets) + len(self.offsets) - 1

    def lacking(self, required: "Position") -> "Position | None":
        """Return the part of a required position that is not reached; None if all of it is.

        Requirements for inputs that this position does not have do not apply.
        """
        reached = dict(self.entries)
        missing = [(name, least) for name, least in required.entries if reached.get(name, least) < least]
        return Position.of(missing) if missing else None

    def lower(self, other: "Position") -> "Position":
        """Return, for each input of this position, the lower of the two offsets."""
        others = dict(other.entries)
        lower = [min(offset, others.get(name, offset)) for name, offset in self.entries]
        return Position(self.names, tuple(lower))
