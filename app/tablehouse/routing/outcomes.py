"""The outcome of each key of a batch, and how fresh it is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tablehouse.errors import KeyNotFound, RequestError
from tablehouse.model import Freshness, Role
from tablehouse.routing.query import missing_detail
from tablehouse.telemetry import Metrics

#: Roles, each of which says less about a row than the one before.
_LESS_CERTAIN = (Role.ACTIVE, Role.STANDBY, Role.SUSPENDED)

#: A row's payload, or why the key has none: KeyNotFound where there is no row, any other error where it is unknown.
Outcome = bytes | RequestError


@dataclass(frozen=True, slots=True)
class PartitionAnswer:
    """Under which label a partition's keys were answered, and by whom."""

    freshness: Freshness
    served_by: str


class Outcomes:
    """The outcomes of the keys of one batch, each of which is set once, handed out once, and counted.

    partitions say how fresh the answers are, by partition, of those that were given so far; where a partition was asked
    more than once, it is the worst of each figure.
    """

    def __init__(self, table: str, keys: int, metrics: Metrics) -> None:
        self.partitions: dict[int, PartitionAnswer] = {}
        self._table = table
        self._reads = metrics.reads
        #: By key, None while there is none and once it was handed out.
        self._of: list[Outcome | None] = [None] * keys

    def has(self, index: int) -> bool:
        """Return whether a key has its outcome."""
        return self._of[index] is not None

    def take(self, first: int) -> Sequence[Outcome]:
        """Hand out those of the keys from first on, up to the one that has none yet."""
        try:
            end = self._of.index(None, first)
        except ValueError:
            end = len(self._of)
        ready = [outcome for outcome in self._of[first:end] if outcome is not None]
        self._of[first:end] = [None] * (end - first)
        return ready

    def repeat(self, index: int, other: int) -> None:
        """Set for a key what is set for another, which is the same key; it counts as one read."""
        self._of[index] = self._of[other]

    def set(self, index: int, outcome: Outcome) -> None:
        """Set one that was counted elsewhere."""
        self._of[index] = outcome

    def missing(self, index: int, freshness: Freshness) -> None:
        """Set that a key does not exist, which was counted elsewhere."""
        self._of[index] = self._not_found(freshness)

    def fail(self, indexes: Sequence[int], error: RequestError) -> None:
        """Set why no copy answers for these keys, or that they do not exist."""
        for index in indexes:
            self._of[index] = error
        if indexes and not isinstance(error, KeyNotFound):
            self._reads.labels(self._table, "unavailable").inc(len(indexes))

    def answer(
        self, rows: Sequence[tuple[int, bytes]], missing: Sequence[int], freshness: Freshness, served_by: str
    ) -> None:
        """Set what a copy has for keys, and that others are not in it."""
        outcomes = self._of
        for index, payload in rows:
            outcomes[index] = payload
        if missing:
            not_found = self._not_found(freshness)
            for index in missing:
                outcomes[index] = not_found
        if freshness.role is not Role.ACTIVE:
            self._reads.labels(self._table, "stale").inc(len(rows) + len(missing))
        else:
            self._reads.labels(self._table, "hit").inc(len(rows))
            self._reads.labels(self._table, "miss").inc(len(missing))
        if rows or missing:
            self.label(freshness, served_by)

    def label(self, freshness: Freshness, served_by: str) -> None:
        """Record how fresh an answer of a partition is."""
        answer, known = PartitionAnswer(freshness, served_by), self.partitions.get(freshness.partition)
        self.partitions[freshness.partition] = answer if known is None else worse(known, answer)

    def _not_found(self, freshness: Freshness) -> KeyNotFound:
        detail = missing_detail(self._table, freshness)
        return KeyNotFound(detail, table=self._table, partition=freshness.partition)


def worse(one: PartitionAnswer, other: PartitionAnswer) -> PartitionAnswer:
    """Return a label that is true of the answers under both, served by the one whose role says less."""
    if one.freshness == other.freshness:
        return one
    less = max(one, other, key=lambda answer: _LESS_CERTAIN.index(answer.freshness.role))
    return PartitionAnswer(worst(one.freshness, other.freshness), less.served_by)


def worst(one: Freshness, other: Freshness) -> Freshness:
    """Return a label of a partition that is true of the answers under both: the worst of each figure."""
    if one == other:
        return one
    both = (one, other)
    return Freshness(
        partition=one.partition,
        position=one.position.lower(other.position),
        role=max((freshness.role for freshness in both), key=_LESS_CERTAIN.index),
        lag_records=_most(freshness.lag_records for freshness in both),
        staleness_ms=_most(freshness.staleness_ms for freshness in both),
        rejected_records=max(freshness.rejected_records for freshness in both),
    )


def _most(figures: Iterable[int | None]) -> int | None:
    """Return the highest; one that is not known may be higher than all."""
    known = list(figures)
    return None if None in known else max(figure for figure in known if figure is not None)
