"""Proposes a table for a topic, and says why, from a sample of its records."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tablehouse.inspection.keys import KeyChoice, choose_key
from tablehouse.inspection.partitioners import PartitionerChoice, choose_partitioner
from tablehouse.inspection.reading import Reading
from tablehouse.inspection.sample import TopicSample
from tablehouse.inspection.values import ValueChoice, choose_value

#: Characters that a table's name cannot have, and how long it may be.
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Proposal:
    """A table for a topic, as far as it can be told; `problems` are what a person has to decide or mend first."""

    name: str
    sample: TopicSample
    key: KeyChoice
    value: ValueChoice
    partitioner: PartitionerChoice
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_possible(self) -> bool:
        """Whether there is a definition at all, be it one with something left to decide."""
        return self.key.spec is not None and self.value.spec is not None


async def propose(sample: TopicSample, reading: Reading, taken: Iterable[str] = ()) -> Proposal:
    """Return a proposal whose name is none of those taken."""
    key, value = await choose_key(sample, reading), await choose_value(sample, reading)
    partitioner = choose_partitioner(sample)
    return Proposal(
        name=_name(sample.topic, set(taken)),
        sample=sample,
        key=key,
        value=value,
        partitioner=partitioner,
        problems=tuple(_problems(key, value, partitioner)),
        notes=tuple(notes_of(sample)),
    )


def notes_of(sample: TopicSample) -> Iterable[str]:
    """Yield what there is to know of a topic, whatever its records are."""
    yield from sample.unread
    if "compact" not in sample.cleanup_policy:
        lost = ", and records were removed already" if sample.has_lost_records else ""
        yield (
            f"cleanup.policy is {sample.cleanup_policy}{lost}: a key whose last record expires stays in a table that "
            "was built before and is missing in one that is built after; the source of a table is usually compacted"
        )


def _problems(key: KeyChoice, value: ValueChoice, partitioner: PartitionerChoice) -> Iterable[str]:
    if key.spec is None:
        yield f"key: {key.why}"
    elif key.rivals:
        yield f"key: {key.spec} and {' and '.join(map(str, key.rivals))} fit all keys; ask who produces them"
    if value.spec is None or not value.fit.is_whole:
        yield f"value: {value.why}"
    if partitioner.name is None:
        yield f"partitioner: {partitioner.why}"


def _name(topic: str, taken: set[str]) -> str:
    """Return a table's name like a topic's: `Orders.v1` becomes `orders_v1`."""
    plain = _NOT_IN_NAMES.sub("_", topic.lower()).strip("_-") or "table"
    name = (plain if plain[0].isalpha() else f"t_{plain}")[:_LONGEST_NAME]
    number, unique = 2, name
    while unique in taken:
        suffix = f"_{number}"
        unique, number = name[: _LONGEST_NAME - len(suffix)] + suffix, number + 1
    return unique
