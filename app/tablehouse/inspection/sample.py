"""A sample of a topic's records, and the brokers' metadata of the topic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tablehouse.model import TopicPartition


class SampledRecord(NamedTuple):
    """A record, its partition and offset; `timestamp` is in milliseconds since 1970, -1 for none."""

    place: TopicPartition
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]

    def __str__(self) -> str:
        return f"offset {self.offset} of {self.place}"


@dataclass(frozen=True, slots=True)
class TopicSample:
    """Records from the start and from the end of every partition, in the order of partitions and offsets.

    `bounds` are the first offset and the one after the last of each partition for which they are known. `unread` are
    the reasons why requested records of partitions could not be read.
    """

    topic: str
    partitions: int
    cleanup_policy: str
    bounds: Mapping[int, tuple[int, int]]
    records: Sequence[SampledRecord]
    unread: Sequence[str] = ()

    @property
    def keys(self) -> dict[bytes, SampledRecord]:
        """The distinct keys with the first record of each; without null keys."""
        found: dict[bytes, SampledRecord] = {}
        for record in self.records:
            if record.key is not None:
                found.setdefault(record.key, record)
        return found

    @property
    def with_values(self) -> list[SampledRecord]:
        """The records that are not tombstones."""
        return [record for record in self.records if record.value is not None]

    @property
    def offsets(self) -> int:
        """The number of offsets in the log; compaction and transactions leave some without a record."""
        return sum(end - start for start, end in self.bounds.values())

    @property
    def has_lost_records(self) -> bool:
        """Whether retention may have removed records that were the latest of their key."""
        return "compact" not in self.cleanup_policy and any(start > 0 for start, _ in self.bounds.values())
