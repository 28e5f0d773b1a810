"""Proposes a table for a topic, with reasons, from a sample of its records."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tablehouse.inspection.keys import KeyChoice, choose_key
from tablehouse.inspection.partitioners import PartitionerChoice, choose_partitioner
from tablehouse.inspection.reading import Reading
from tablehouse.inspection.sample import TopicSample
from tablehouse.inspection.values import ValueChoice, choose_value

#: Characters not allowed in a table's name, and its maximum length.
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")
_MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed table for a topic; `problems` must be decided or fixed by the user first."""

    name: str
    sample: TopicSample
    key: KeyChoice
    value: ValueChoice
    partitioner: PartitionerChoice
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_possible(self) -> bool:
        """Whether there is a definition, possibly with undecided parts."""
        return self.key.spec is not None and self.value.spec is not None


async def propose(sample: TopicSample, reading: Reading, taken: Iterable[str] = ()) -> Proposal:
    """Return a proposal whose name is not in `taken`."""
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
    """Yield notes on a topic that do not depend on its records' contents."""
    yield from sample.unread
    if "compact" not in sample.cleanup_policy:
        lost = ", and records were removed already" if sample.has_lost_records else ""
        yield (
            f"cleanup.policy is {sample.cleanup_policy}{lost}: a key whose last record expires stays in tables built "
            "before and is missing in tables built after; the source of a table is usually compacted"
        )


def _problems(key: KeyChoice, value: ValueChoice, partitioner: PartitionerChoice) -> Iterable[str]:
    if key.spec is None:
        yield f"key: {key.why}"
    elif key.rivals:
        yield f"key: {key.spec} and {' and '.join(map(str, key.rivals))} fit all keys; check how they are produced"
    if value.spec is None or not value.fit.is_whole:
        yield f"value: {value.why}"
    if partitioner.name is None:
        yield f"partitioner: {partitioner.why}"


def _name(topic: str, taken: set[str]) -> str:
    """Return a table name derived from a topic's name: `Orders.v1` becomes `orders_v1`."""
    plain = _NOT_IN_NAMES.sub("_", topic.lower()).strip("_-") or "table"
    name = (plain if plain[0].isalpha() else f"t_{plain}")[:_MAX_NAME_CHARACTERS]
    number, unique = 2, name
    while unique in taken:
        suffix = f"_{number}"
        unique, number = name[: _MAX_NAME_CHARACTERS - len(suffix)] + suffix, number + 1
    return unique
