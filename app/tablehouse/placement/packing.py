"""The wire format of the distribution: for each partition of a topic, the numbers of the members that have it.

Here, as in copies.py, a topic is a shard name with all its shards.

Every member gets the whole distribution, and Kafka stores the assignments of all members in one record of at most 1 MiB
by default. So a number takes only one byte, or two in a group of 255 members or more.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Protocol

#: For each topic: first the active of each partition, then one layer per standby, up to the highest number of standbys.
Layers = dict[str, list[bytes]]

#: The number for no member; the first of the list has number 1.
_NOBODY = 0
_ONE_BYTE = 254


class Holder(Protocol):
    """The partitions of one member, by shard name."""

    @property
    def actives(self) -> Mapping[str, Sequence[int]]:
        """The partitions that the member owns as active."""

    @property
    def standbys(self) -> Mapping[str, Sequence[int]]:
        """The partitions that the member follows as standby."""


def pack(holders: Sequence[Holder], partitions: Mapping[str, int]) -> Layers:
    """Convert a distribution by member to one by partition; partitions are the counts of all its topics."""
    actives = {topic: [_NOBODY] * count for topic, count in partitions.items()}
    standbys: dict[str, list[list[int]]] = {topic: [[] for _ in range(count)] for topic, count in partitions.items()}
    for number, holder in enumerate(holders, 1):
        for topic, held in holder.actives.items():
            for partition in held:
                actives[topic][partition] = number
        for topic, held in holder.standbys.items():
            for partition in held:
                standbys[topic][partition].append(number)
    return {
        topic: [
            _to_bytes(layer, len(holders))
            for layer in (actives[topic], *zip_longest(*standbys[topic], fillvalue=_NOBODY))
        ]
        for topic in sorted(partitions)
        if partitions[topic]
    }


def unpack(
    layers: Layers, partitions: Mapping[str, int], holders: int
) -> list[tuple[dict[str, list[int]], dict[str, list[int]]]]:
    """Return actives and standbys of each member, in order.

    Raises ValueError for an unknown member, and for a topic with the wrong number of partitions.
    """
    held: list[tuple[dict[str, list[int]], dict[str, list[int]]]] = [({}, {}) for _ in range(holders)]
    if layers.keys() != {topic for topic, count in partitions.items() if count}:
        raise ValueError("the topics of the distribution differ from those with partition counts")
    for topic, numbered in layers.items():
        if not numbered or any(len(layer) != partitions[topic] * _width(holders) for layer in numbered):
            raise ValueError(f"not all partitions of {topic} are assigned")
        for place, layer in enumerate(numbered):
            for partition, number in enumerate(_from_bytes(layer, holders)):
                if number > holders:
                    raise ValueError(f"{topic}[{partition}] is assigned to member {number} of {holders}")
                if number != _NOBODY:
                    held[number - 1][min(place, 1)].setdefault(topic, []).append(partition)
    for _, standbys in held:
        for followed in standbys.values():
            followed.sort()
    return held


def _width(holders: int) -> int:
    return 1 if holders <= _ONE_BYTE else 2


def _to_bytes(numbers: Sequence[int], holders: int) -> bytes:
    return b"".join(number.to_bytes(_width(holders), "big") for number in numbers)


def _from_bytes(layer: bytes, holders: int) -> list[int]:
    width = _width(holders)
    return [int.from_bytes(layer[at : at + width], "big") for at in range(0, len(layer), width)]
