"""Many reads of one table at once: those here in slices, those of each other worker with one hop.

Beside query.py the only place that forwards, by the same rules. A batch goes through in windows of keys, so that what
is held of it does not grow with it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tablehouse.errors import RequestError
from tablehouse.formats.partitioners import partitions_of
from tablehouse.model import Consistency, HostInfo
from tablehouse.routing.candidates import Candidate
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.outcomes import Outcome, Outcomes, PartitionAnswer
from tablehouse.routing.ports import BatchHop, Peer, Slice, Wanted
from tablehouse.routing.query import (
    ASK_THE_NEXT,
    NOT_OWNER_PAUSE,
    WAITING_SHARE,
    Query,
    counted_forward,
    hop_seconds,
    partition_count,
    trusted,
)
from tablehouse.routing.refusals import Refusal, explained, last_answer, worth_asking_again
from tablehouse.routing.slices import Slices
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.reads import ReadResult, SliceResult
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns

#: Keys that are looked up together, one hop to each owner for so many; and the least, however large their rows are.
WINDOW = 2048
LEAST_WINDOW = 16

#: Keys parsed in one go, about 1 us each.
KEYS_A_TURN = 256

#: Single reads at the same time. Where the rows are here each takes some 10 us; a worker that does not answer holds up
#: those alone that have to ask it.
ALONE_AT_ONCE = 32


@dataclass(slots=True)
class _Group:
    """The keys of one partition that have no answer yet, and who was asked for them."""

    partition: int
    indexes: list[int] = field(default_factory=list)
    stored_keys: list[bytes] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What batches work with."""

    view: ClusterView
    slices: Slices
    peer: Peer
    query: Query
    worker_id: str
    clock: Callable[[], float]
    metrics: Metrics
    turns: Turns


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one batch asks for; count is the partition count that its keys are hashed with.

    waits_until, to which wanted positions are waited for, is a point on the clock.
    """

    routed: RoutedTable
    count: int
    consistency: Consistency
    waits_until: float
    request_id: str


class Batches:
    """Reads batches of keys over the whole cluster; clock is monotonic, in seconds."""

    def __init__(
        self,
        *,
        tables: Mapping[str, RoutedTable],
        view: ClusterView,
        slices: Slices,
        peer: Peer,
        query: Query,
        worker_id: str,
        clock: Callable[[], float],
        metrics: Metrics,
        turns: Turns,
    ) -> None:
        self._tables = tables
        self._parts = _Parts(view, slices, peer, query, worker_id, clock, metrics, turns)

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
        started = self._parts.clock()
        count = partition_count(routed, self._parts.view.current)
        waits_until = started
        if consistency.min_positions:
            waits_until = min(deadline, started + ((deadline - started) * WAITING_SHARE if wait is None else wait))
        asked = _Asked(routed, count, consistency, waits_until, request_id)
        return Batch(self._parts, asked, keys, deadline)


class Batch:
    """One batch on its way; to be iterated over once."""

    def __init__(self, parts: _Parts, asked: _Asked, keys: Sequence[bytes | RequestError], deadline: float) -> None:
        self._parts = parts
        self._asked = asked
        self._keys = keys
        #: A point on the clock, which moves on while the client takes what there is.
        self._deadline = deadline
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
            window = min(WINDOW, max(LEAST_WINDOW, 2 * len(ready)))
            first += len(ready)
            given_at = self._parts.clock()
            yield ready
            self._deadline += self._parts.clock() - given_at

    async def _look_up(self, first: int, end: int) -> None:
        """Find outcomes for the keys from first to end that have none: for the first of them, and for others."""
        groups: dict[int, _Group] = {}
        alone: list[tuple[int, bytes]] = []
        known: dict[bytes, int] = {}
        repeated: list[tuple[int, int]] = []
        for start in range(first, end, KEYS_A_TURN):
            if start > first:
                await self._parts.turns.wait()
            indexes = self._first_ones(range(start, min(start + KEYS_A_TURN, end)), known, repeated)
            self._group(indexes, groups, alone)
        await self._ask(list(groups.values()))
        for start in range(0, len(alone), ALONE_AT_ONCE):
            await self._parts.turns.wait()
            async with asyncio.TaskGroup() as tasks:
                for index, text in alone[start : start + ALONE_AT_ONCE]:
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
        places = partitions_of(routed.spec.source.partitioner, wires, self._asked.count)
        for index, stored_key, partition in zip(found, stored, places, strict=True):
            group = groups.get(partition)
            if group is None:
                group = groups[partition] = _Group(partition)
            group.indexes.append(index)
            group.stored_keys.append(stored_key)

    async def _ask_alone(self, index: int, text: bytes) -> None:
        asked = self._asked
        try:
            answer = await self._parts.query.read(
                asked.routed.spec.name,
                text,
                deadline=self._deadline,
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

    async def _ask(self, groups: Sequence[_Group]) -> None:
        """Ask the candidates of each group in turn, and once more those that a newer snapshot may help."""
        asked, spec = self._asked, self._asked.routed.spec
        for again in (False, True):
            snapshot = self._parts.view.current
            # Under another partition count the keys were hashed wrongly, and a miss would be a false one.
            if snapshot.partitions.get(spec.shard_name) != asked.count:
                break
            for group in groups:
                shard = spec.shard(group.partition)
                group.candidates = self._parts.query.candidates.of(shard, snapshot, asked.consistency.mode)
            if again:
                await self._keep_those_worth_asking(groups)
            while waiting := [group for group in groups if self._goes_on(group)]:
                await self._ask_next(waiting, snapshot.generation)
            if not any(group.indexes for group in groups):
                return
        generation = self._parts.view.current.generation
        for group in groups:
            place = (asked.routed.spec.name, group.partition)
            self._outcomes.fail(
                group.indexes, explained(last_answer(group.refusals, *place), group.refusals, *place, generation)
            )

    def _goes_on(self, group: _Group) -> bool:
        late = bool(group.refusals) and self._parts.clock() >= self._deadline
        return bool(group.indexes and group.candidates) and not late

    async def _keep_those_worth_asking(self, groups: Sequence[_Group]) -> None:
        pause = False
        for group in groups:
            group.candidates, at_once = worth_asking_again(group.candidates, group.refusals)
            pause = pause or bool(group.indexes and group.candidates and not at_once)
        if pause:
            left = self._deadline - self._parts.clock()
            await asyncio.sleep(min(NOT_OWNER_PAUSE, max(0.0, left)))

    async def _ask_next(self, groups: Sequence[_Group], generation: int) -> None:
        """Ask the next candidate of each group; each worker once for all the groups that have it next."""
        hosts: dict[tuple[HostInfo, bool], list[tuple[_Group, Candidate]]] = {}
        for group in groups:
            candidate = group.candidates.pop(0)
            waits = self._parts.query.candidates.worth_waiting(group.candidates)
            hosts.setdefault((candidate.host, waits), []).append((group, candidate))
        if len(hosts) == 1:
            [((host, waits), asked)] = hosts.items()
            await self._ask_host(host, asked, generation, waits=waits)
            return
        async with asyncio.TaskGroup() as tasks:
            for (host, waits), asked in hosts.items():
                tasks.create_task(self._ask_host(host, asked, generation, waits=waits))

    async def _ask_host(
        self, host: HostInfo, groups: Sequence[tuple[_Group, Candidate]], generation: int, *, waits: bool
    ) -> None:
        wanted = [Wanted(group.partition, group.stored_keys) for group, _ in groups]
        followed = any(group.candidates for group, _ in groups)
        try:
            slices, worker_id = await self._slices(host, wanted, generation, waits=waits, followed=followed)
        except RequestError as error:
            if isinstance(error, ASK_THE_NEXT):
                self._parts.query.candidates.heard(host, error)
            for group, candidate in groups:
                kept = self._refused(group, candidate, error, range(len(group.indexes)))
                _keep(group, kept)
            return
        self._parts.query.candidates.heard(host)
        for group, candidate in groups:
            said = [part for part in slices if part.partition == group.partition]
            self._take_over(group, candidate, said, worker_id)

    async def _slices(
        self, host: HostInfo, wanted: Sequence[Wanted], generation: int, *, waits: bool, followed: bool
    ) -> tuple[Sequence[Slice], str]:
        """Get what a worker says of the wanted keys; raises what Peer.read_many raises."""
        asked, parts = self._asked, self._parts
        started = parts.clock()
        waits_until = asked.waits_until if waits else started
        if host.worker_id == parts.worker_id:
            slices = await parts.slices.read(asked.routed.spec.name, wanted, asked.consistency, waits_until)
            return slices, parts.worker_id
        wait = max(0.0, waits_until - started)
        hop = BatchHop(
            table=asked.routed.spec.name,
            wanted=wanted,
            consistency=asked.consistency,
            wait=wait,
            table_digest=asked.routed.digest,
            partitions=asked.count,
            generation=generation,
            request_id=asked.request_id,
            timeout=hop_seconds(host, self._deadline - started, wait, followed=followed),
        )
        with counted_forward(parts.metrics, parts.clock):
            answer = await parts.peer.read_many(host, hop)
        return answer.slices, answer.worker_id

    def _take_over(self, group: _Group, candidate: Candidate, slices: Sequence[Slice], worker_id: str) -> None:
        """Take outcomes from what a worker said of a group, and keep in the group what another one has to be asked.

        Keys that it did not get to are no longer in the group: they are looked up again.
        """
        kept: list[int] = []
        start = 0
        for part in slices:
            places = range(start, min(start + part.keys, len(group.indexes)))
            start += part.keys
            if isinstance(part.outcome, RequestError):
                kept += self._refused(group, candidate, part.outcome, places)
            else:
                kept += self._answered(group, candidate, part.outcome, places, worker_id)
        _keep(group, kept)

    def _answered(
        self, group: _Group, candidate: Candidate, result: SliceResult, places: range, worker_id: str
    ) -> Sequence[int]:
        """Take the outcomes of a slice; return the places of the group that somebody else has to be asked for."""
        indexes = group.indexes
        there: list[tuple[int, bytes]] = []
        missing: list[int] = []
        for place, payload in zip(places, result.payloads, strict=True):
            if payload is None:
                missing.append(place)
            else:
                there.append((place, payload))
        kept: list[int] = []
        if result.hit is not None:
            kept += self._refused(group, candidate, result.hit, [place for place, _ in there])
            there = []
        refusal = self._miss_refusal(result) if missing else None
        if refusal is not None:
            kept += self._refused(group, candidate, refusal, missing)
            missing = []
        rows = [(indexes[place], payload) for place, payload in there]
        self._outcomes.answer(rows, [indexes[place] for place in missing], result.freshness, worker_id)
        return kept

    def _miss_refusal(self, result: SliceResult) -> RequestError | None:
        if result.miss is not None:
            return result.miss
        try:
            trusted(ReadResult(None, result.freshness), self._asked.consistency)
        except RequestError as error:
            return error
        return None

    def _refused(
        self, group: _Group, candidate: Candidate, error: RequestError, places: Sequence[int]
    ) -> Sequence[int]:
        """Take note of a refusal; return the places for which another candidate may know better."""
        if not places:
            return ()
        if isinstance(error, ASK_THE_NEXT):
            group.refusals.append(Refusal(candidate, error))
            return places
        asked = self._asked
        refusals = [*group.refusals, Refusal(candidate, error)]
        where = (asked.routed.spec.name, group.partition, self._parts.view.current.generation)
        self._outcomes.fail([group.indexes[place] for place in places], explained(error, refusals, *where))
        return ()


def _keep(group: _Group, places: Sequence[int]) -> None:
    indexes, keys, in_order = group.indexes, group.stored_keys, sorted(places)
    group.indexes = [indexes[place] for place in in_order]
    group.stored_keys = [keys[place] for place in in_order]
