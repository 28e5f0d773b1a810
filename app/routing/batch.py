"""Many reads of one table at once: those here in slices, those of each other worker with one hop.

Beside query.py the only place that forwards, by the same rules. A batch goes through in windows of keys, so that what
is held of it does not grow with it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from app.errors import (
    KeyNotFound,
    RequestError,
)
from app.formats.partitioners import partitions_of
from app.model import Consistency, Freshness, HostInfo, Role, TopicPartition
from app.routing.candidates import Candidate
from app.routing.cluster import ClusterView
from app.routing.ports import BatchHop, Peer, Slice, Unresponsive, Wanted
from app.routing.query import (
    ASK_THE_NEXT,
    NOT_OWNER_PAUSE,
    WAITING_SHARE,
    Query,
    counted_forward,
    hop_seconds,
    missing_detail,
    partition_count,
    trusted,
)
from app.routing.refusals import Refusal, explained, last_answer, worth_asking_again
from app.routing.slices import Slices
from app.routing.tables import RoutedTable, table_named
from app.tasks.reads import ReadResult, SliceResult
from app.telemetry import Metrics
from app.turns import Turns

#: Keys that are looked up together, one hop to each owner for so many; and the least, however large their rows are.
WINDOW = 2048
LEAST_WINDOW = 16

#: Keys parsed in one go, about 1 us each.
KEYS_A_TURN = 256

#: Roles, each of which says less about a row than the one before.
_LESS_CERTAIN = (Role.ACTIVE, Role.STANDBY, Role.SUSPENDED)

#: Single reads at the same time. Where the rows are here each takes some 10 us; a worker that does not answer holds up
#: those alone that have to ask it.
ALONE_AT_ONCE = 32

#: A row's payload, or why the key has none: KeyNotFound where there is no row, any other error where nobody could tell.
Outcome = bytes | RequestError


@dataclass(frozen=True, slots=True)
class PartitionAnswer:
    """Under which label a partition's keys were answered, and by whom."""

    freshness: Freshness
    served_by: str


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
    """One batch on its way; to be iterated over once.

    partitions say how fresh the answers are, by partition, of those that were given so far; where a partition was asked
    more than once, it is the worst of each figure.
    """

    def __init__(self, parts: _Parts, asked: _Asked, keys: Sequence[bytes | RequestError], deadline: float) -> None:
        self.partitions: dict[int, PartitionAnswer] = {}
        self._parts = parts
        self._asked = asked
        self._keys = keys
        #: A point on the clock, which moves on while the client takes what there is.
        self._deadline = deadline
        #: By key, None while there is none and once it was handed out.
        self._outcomes: list[Outcome | None] = [None] * len(keys)

    async def outcomes(self) -> AsyncIterator[Sequence[Outcome]]:
        """Give the outcome of each key in order, as many at once as there are; looks for more when asked for more."""
        first, window = 0, WINDOW
        while first < len(self._keys):
            await self._look_up(first, min(first + window, len(self._keys)))
            try:
                end = self._outcomes.index(None, first)
            except ValueError:
                end = len(self._keys)
            # Where rows are large few keys are answered at once, and the others would be looked at again and again.
            window = min(WINDOW, max(LEAST_WINDOW, 2 * (end - first)))
            ready = [outcome for outcome in self._outcomes[first:end] if outcome is not None]
            self._outcomes[first:end] = [None] * (end - first)
            first, given_at = end, self._parts.clock()
            yield ready
            self._deadline += self._parts.clock() - given_at

    async def _look_up(self, first: int, end: int) -> None:
        """Find outcomes for the keys from first to end that have none: for the first of them, and for others."""
        groups: dict[int, _Group] = {}
        alone: list[tuple[int, bytes]] = []
        for start in range(first, end, KEYS_A_TURN):
            if start > first:
                await self._parts.turns.wait()
            self._group(range(start, min(start + KEYS_A_TURN, end)), groups, alone)
        await self._ask(list(groups.values()))
        for start in range(0, len(alone), ALONE_AT_ONCE):
            await self._parts.turns.wait()
            async with asyncio.TaskGroup() as tasks:
                for index, text in alone[start : start + ALONE_AT_ONCE]:
                    tasks.create_task(self._ask_alone(index, text))

    def _group(self, indexes: range, groups: dict[int, _Group], alone: list[tuple[int, bytes]]) -> None:
        """Add keys to the groups of their partitions, and those that may lie in several to the ones to ask alone."""
        routed, outcomes, keys = self._asked.routed, self._outcomes, self._keys
        parse = routed.parse
        found: list[int] = []
        stored: list[bytes] = []
        wires: list[bytes] = []
        for index in indexes:
            if outcomes[index] is not None:
                continue
            text = keys[index]
            if isinstance(text, RequestError):
                outcomes[index] = text
                continue
            try:
                key = parse(text)
            except RequestError as error:
                outcomes[index] = error
                continue
            if len(key.wires) != 1 or not key.enumerable:
                alone.append((index, text))
                continue
            found.append(index)
            stored.append(key.stored)
            wires.append(key.wires[0])
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
            self._outcomes[index] = error
            return
        self._label(answer.result.freshness, answer.served_by)
        row = answer.result.row
        self._outcomes[index] = self._not_found(answer.result.freshness) if row is None else row.payload

    async def _ask(self, groups: Sequence[_Group]) -> None:
        """Ask the candidates of each group in turn, and once more those that a newer snapshot may help."""
        asked, topic = self._asked, self._asked.routed.spec.source.topic
        for again in (False, True):
            snapshot = self._parts.view.current
            # Under another partition count the keys were hashed wrongly, and a miss would be a false one.
            if snapshot.partitions.get(topic) != asked.count:
                break
            for group in groups:
                shard = TopicPartition(topic, group.partition)
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
            self._settle(
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
            if isinstance(error, Unresponsive):
                self._parts.query.candidates.avoid(host)
            for group, candidate in groups:
                kept = self._refused(group, candidate, error, range(len(group.indexes)))
                _keep(group, kept)
            return
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
        outcomes, indexes = self._outcomes, group.indexes
        missing: list[int] = []
        if result.hit is None:
            for place, payload in zip(places, result.payloads, strict=True):
                if payload is None:
                    missing.append(place)
                else:
                    outcomes[indexes[place]] = payload
            hits, kept = len(places) - len(missing), []
        else:
            missing = [place for place, payload in zip(places, result.payloads, strict=True) if payload is None]
            there = [place for place, payload in zip(places, result.payloads, strict=True) if payload is not None]
            hits, kept = 0, list(self._refused(group, candidate, result.hit, there))
        refusal = self._miss_refusal(result) if missing else None
        if refusal is not None:
            kept += self._refused(group, candidate, refusal, missing)
        elif missing:
            self._settle([indexes[place] for place in missing], self._not_found(result.freshness))
        self._count(result.freshness, hits, 0 if refusal else len(missing))
        if hits or (missing and refusal is None):
            self._label(result.freshness, worker_id)
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
        self._settle([group.indexes[place] for place in places], explained(error, refusals, *where))
        return ()

    def _settle(self, indexes: Sequence[int], error: RequestError) -> None:
        for index in indexes:
            self._outcomes[index] = error
        if indexes and not isinstance(error, KeyNotFound):
            self._parts.metrics.reads.labels(self._asked.routed.spec.name, "unavailable").inc(len(indexes))

    def _not_found(self, freshness: Freshness) -> KeyNotFound:
        name = self._asked.routed.spec.name
        return KeyNotFound(missing_detail(name, freshness.role), table=name, partition=freshness.partition)

    def _label(self, freshness: Freshness, worker_id: str) -> None:
        answer, known = PartitionAnswer(freshness, worker_id), self.partitions.get(freshness.partition)
        self.partitions[freshness.partition] = answer if known is None else _worse(known, answer)

    def _count(self, freshness: Freshness, hits: int, misses: int) -> None:
        reads, name = self._parts.metrics.reads, self._asked.routed.spec.name
        if freshness.role is not Role.ACTIVE:
            reads.labels(name, "stale").inc(hits + misses)
            return
        reads.labels(name, "hit").inc(hits)
        reads.labels(name, "miss").inc(misses)


def _worse(one: PartitionAnswer, other: PartitionAnswer) -> PartitionAnswer:
    """Return a label that is true of the answers under both, served by the one whose role says less."""
    if one.freshness == other.freshness:
        return one
    less = max(one, other, key=lambda answer: _LESS_CERTAIN.index(answer.freshness.role))
    both = (one.freshness, other.freshness)
    return PartitionAnswer(
        Freshness(
            partition=less.freshness.partition,
            position=min(freshness.position for freshness in both),
            role=less.freshness.role,
            lag_records=_most(freshness.lag_records for freshness in both),
            staleness_ms=_most(freshness.staleness_ms for freshness in both),
        ),
        less.served_by,
    )


def _most(figures: Iterable[int | None]) -> int | None:
    """Return the highest; one that is not known may be higher than all."""
    known = list(figures)
    return None if None in known else max(figure for figure in known if figure is not None)


def _keep(group: _Group, places: Sequence[int]) -> None:
    indexes, keys, in_order = group.indexes, group.stored_keys, sorted(places)
    group.indexes = [indexes[place] for place in in_order]
    group.stored_keys = [keys[place] for place in in_order]
