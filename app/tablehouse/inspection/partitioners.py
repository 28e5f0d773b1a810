"""Finds the partitioner that matches the partitions of a sample's keys."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

from tablehouse.catalog.spec import Partitioner, PartitionerName
from tablehouse.formats import partitioners
from tablehouse.inspection.sample import TopicSample

#: A coincidence is mentioned if its probability is at least this.
_MIN_CHANCE = 0.001


@dataclass(frozen=True, slots=True)
class PartitionerChoice:
    """The matching partitioner, `any` if none matches, None if several do.

    `fitting` is, by partitioner, how many of the `keys` it assigns to their partitions.
    """

    name: Partitioner | None
    rivals: tuple[PartitionerName, ...]
    fitting: Mapping[PartitionerName, int]
    keys: int
    why: str


def choose_partitioner(sample: TopicSample) -> PartitionerChoice:
    """Return the one partitioner that matches all keys; `any` if none does."""
    places: dict[bytes, set[int]] = defaultdict(set)
    for record in sample.records:
        if record.key:
            places[record.key].add(record.place.partition)
    total, names = len(places), cast("tuple[PartitionerName, ...]", get_args(PartitionerName))
    # A key in two partitions matches no partitioner.
    fits = Counter(
        name
        for key, (partition, *others) in places.items()
        if not others
        for name in partitioners.fitting(key, partition, sample.partitions)
    )
    fitting = {name: fits[name] for name in names}
    if sample.partitions == 1:
        return PartitionerChoice(
            "murmur2", (), fitting, total, "there is only one partition, so every partitioner fits"
        )
    if not total:
        return PartitionerChoice(None, names, fitting, total, "there are no keys from which to tell the partitioner")
    whole = tuple(name for name in names if fitting[name] == total)
    if len(whole) == 1:
        (name,) = whole
        others = ", ".join(f"{other} {count}" for other, count in fitting.items() if other != name)
        chance = "; with so few keys this may be a coincidence" if _may_be_chance(sample.partitions, total) else ""
        found = "the one key is where it puts it" if total == 1 else f"all {total} keys are where it puts them"
        why = f"{found} (others: {others}){chance}"
        return PartitionerChoice(name, (), fitting, total, why)
    if whole:
        found = "the one key where it is" if total == 1 else f"all {total} keys where they are"
        why = f"{' and '.join(whole)} put {found}: find out how the topic is produced"
        return PartitionerChoice(None, whole, fitting, total, why)
    counts = ", ".join(f"{name} {count}" for name, count in fitting.items())
    why = f"no partitioner known here puts all {total} keys where they are ({counts}), so reads ask every partition"
    return PartitionerChoice("any", (), fitting, total, why)


def _may_be_chance(partitions: int, keys: int) -> bool:
    """Return whether a partitioner other than the producers' may match these keys by coincidence."""
    return keys * math.log(partitions) < -math.log(_MIN_CHANCE)
