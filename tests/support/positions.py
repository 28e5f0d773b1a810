"""Positions as tasks of plain tables have them, and names of inputs."""

from collections.abc import Mapping

from tablehouse.model import TopicPartition
from tablehouse.positions import Position


def at(partition: int, offset: int) -> Position:
    """Return the position of a partition of a table of one topic."""
    return Position((str(partition),), (offset,))


def with_names(*inputs: TopicPartition) -> Mapping[TopicPartition, str]:
    """Return inputs with the names that they have in positions."""
    is_one = len({source.topic for source in inputs}) == 1
    return {source: str(source.partition) if is_one else f"{source.topic}/{source.partition}" for source in inputs}
