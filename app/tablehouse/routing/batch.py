"""Many reads of one table at once: those here in slices, those of each other worker with one hop.

A batch goes through in windows of keys, so that what is held of it does not grow with it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from tablehouse.errors import RequestError
from tablehouse.formats.partitioners import partitions_of
from tablehouse.model import Consistency
from tablehouse.routing.asking import Asker, Keys, Refused, untrusted_miss
from tablehouse.routing.outcomes import Outcome, Outcomes, PartitionAnswer
from tablehouse.routing.query import Query
from tablehouse.routing.search import Asked
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.reads import SliceResult
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns

#: Keys that are looked up together, with one hop to each owner; and the minimum, however large their rows are.
WINDOW = 2048
MIN_WINDOW = 16

#: Keys parsed in one go, about 1 us each.
KEYS_PER_TURN = 256

#: Single reads at the same time. Where the rows are here each takes some 10 us; a worker that does not answer holds up
#: those alone that have to ask it.
MAX_ALONE = 32


class _Group(Keys):
    """The keys of one partition that have no answer yet."""

    def __init__(self, partition: int, consistency: Consistency, outcomes: Outcomes) -> None:
        super().__init__(partition)
        self.indexes: list[int] = []
        self._consistency = consistency
        self._outcomes = outcomes

    def take(self, outcome: SliceResult, worker_id: str, places: range) -> Sequence[Refused]:
        """Set the outcomes of a slice, but those that the caller must not have."""
        indexes = self.indexes
        there: list[tuple[int, bytes]] = []
        missing: list[int] = []
        for place, payload in zip(places, outcome.payloads, strict=True):
            if payload is None:
                missing.append(place)
            else:
                there.append((place, payload))
        refused: list[Refused] = []
        if outcome.hit is not None:
            refused.append(Refused(outcome.hit, [place for place, _ in there]))
            there = []
        refusal = (outcome.miss or untrusted_miss(outcome.freshness, self._consistency)) if missing else None
        if refusal is not None:
            refused.append(Refused(refusal, missing))
            missing = []
        rows = [(indexes[place], payload) for place, payload in there]
        self._outcomes.answer(rows, [indexes[place] for place in missing], outcome.freshness, worker_id)
        return refused

    def fail(self, error: RequestError, places: Sequence[int]) -> None:
        """Set the outcomes of some keys."""
        self._outcomes.fail([self.indexes[place] for place in places], error)

    def keep(self, places: Sequence[int]) -> None:
        """Leave only some keys to ask for."""
        super().keep(places)
        indexes = self.indexes
        self.indexes = [indexes[place] for place in places]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What batches work with."""

    asker: Asker
    query: Query
    clock: Callable[[], float]
    metrics: Metrics
    turns: Turns


class Batches:
    """Reads batches of keys over the whole cluster; clock is monotonic, in seconds."""

    def __init__(
        self,
        *,
        tables: Mapping[str, RoutedTable],
        asker: Asker,
        query: Query,
        clock: Callable[[], float],
        metrics: Metrics,
        turns: Turns,
    ) -> None:
        self._tables = tables
        self._parts = _Parts(asker, query, clock, metrics, turns)

    def read(
        self,
        table: str,
        keys: Sequence[bytes | RequestError],
        *,
        deadline: float,
        request_id: str,
        consistency: Consistency,
        wait: float | None,
    ) -> "Batch":
        """Begin to read keys, given as percent-decoded texts or as why they are none; see Query.read for the rest.

        Raises TableNotFound, and PartitionUnassigned before the first assignment. What concerns single keys is among
        the outcomes.
        """
        routed = table_named(self._tables, table)
        asked = self._parts.asker.asked(
            routed, deadline=deadline, request_id=request_id, consistency=consistency, wait=wait
        )
        return Batch(self._parts, asked, keys)


class Batch:
    """One batch on its way; to be iterated over once."""

    def __init__(self, parts: _Parts, asked: Asked, keys: Sequence[bytes | RequestError]) -> None:
        self._parts = parts
        #: Its deadline moves on while the client takes what there is.
        self._asked = asked
        self._keys = keys
        self._outcomes = Outcomes(asked.routed.spec.name, len(keys), parts.metrics)

    @property
    def partitions(self) -> Mapping[int, PartitionAnswer]:
        """How fresh the answers given so far are, by partition."""
        return self._outcomes.partitions

    async def outcomes(self) -> AsyncIterator[Sequence[Outcome]]:
        """Give the outcome of each key in order, as many at once as there are; looks for more when asked for more."""
        first, window = 0, WINDOW
        while first < len(self._keys):
            await self._look_up(first, min(first + window, len(self._keys)))
            ready = self._outcomes.take(first)
            # Where rows are large few keys are answered at once, and the others would be looked at again and again.
            window = min(WINDOW, max(MIN_WINDOW, 2 * len(ready)))
            first += len(ready)
            given_at = self._parts.clock()
            yield ready
            taken = self._parts.clock() - given_at
            self._asked = self._asked._replace(deadline=self._asked.deadline + taken)

    async def _look_up(self, first: int, end: int) -> None:
        """Find outcomes for the keys from first to end that have none: for the first of them, and for others."""
        groups: dict[int, _Group] = {}
        alone: list[tuple[int, bytes]] = []
        known: dict[bytes, int] = {}
        repeated: list[tuple[int, int]] = []
        for start in range(first, end, KEYS_PER_TURN):
            if start > first:
                await self._parts.turns.wait()
            indexes = self._first_ones(range(start, min(start + KEYS_PER_TURN, end)), known, repeated)
            self._group(indexes, groups, alone)
        await self._parts.asker.answer_keys(self._asked, list(groups.values()))
        for start in range(0, len(alone), MAX_ALONE):
            await self._parts.turns.wait()
            async with asyncio.TaskGroup() as tasks:
                for index, text in alone[start : start + MAX_ALONE]:
                    tasks.create_task(self._ask_alone(index, text))
        for index, first_index in repeated:
            self._outcomes.repeat(index, first_index)

    def _first_ones(self, indexes: range, known: dict[bytes, int], repeated: list[tuple[int, int]]) -> Sequence[int]:
        """Return those of some keys that have no outcome and were not seen before; add the others to `repeated`.

        `known` are the keys seen so far, and where.
        """
        first_ones = []
        for index in indexes:
            if self._outcomes.has(index):
                continue
            text = self._keys[index]
            first_index = index if isinstance(text, RequestError) else known.setdefault(text, index)
            if first_index == index:
                first_ones.append(index)
            else:
                repeated.append((index, first_index))
        return first_ones

    def _group(self, indexes: Sequence[int], groups: dict[int, _Group], alone: list[tuple[int, bytes]]) -> None:
        """Add keys to the groups of their partitions, and those that may lie in several to the ones to ask alone."""
        routed, outcomes, keys = self._asked.routed, self._outcomes, self._keys
        parse = routed.parse
        found: list[int] = []
        stored: list[bytes] = []
        wires: list[bytes] = []
        for index in indexes:
            text = keys[index]
            if isinstance(text, RequestError):
                outcomes.set(index, text)
                continue
            try:
                key = parse(text)
            except RequestError as error:
                outcomes.set(index, error)
                continue
            if len(key.wires) != 1 or not key.enumerable or routed.spec.source.partitioner == "any":
                alone.append((index, text))
                continue
            found.append(index)
            stored.append(key.stored)
            wires.append(key.wires[0])
        if not found:
            return
        places = partitions_of(routed.spec.source.partitioner, wires, self._asked.partitions)
        for index, stored_key, partition in zip(found, stored, places, strict=True):
            group = groups.get(partition)
            if group is None:
                group = groups[partition] = _Group(partition, self._asked.consistency, outcomes)
            group.indexes.append(index)
            group.stored_keys.append(stored_key)

    async def _ask_alone(self, index: int, text: bytes) -> None:
        asked = self._asked
        try:
            answer = await self._parts.query.read(
                asked.routed.spec.name,
                text,
                deadline=asked.deadline,
                request_id=asked.request_id,
                consistency=asked.consistency,
                wait=max(0.0, asked.waits_until - self._parts.clock()),
            )
        except RequestError as error:
            self._outcomes.set(index, error)
            return
        self._outcomes.label(answer.result.freshness, answer.served_by)
        row = answer.result.row
        if row is None:
            self._outcomes.missing(index, answer.result.freshness)
        else:
            self._outcomes.set(index, row.payload)
