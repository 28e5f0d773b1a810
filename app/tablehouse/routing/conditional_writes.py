"""Conditional writes on their way to the partition's owner, which decides them (decisions.py)."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from tablehouse.errors import InvalidParameter, NotOwner, OwnerUnreachable, PreconditionFailed, RequestError
from tablehouse.formats.encoding import Record
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import HostInfo, ReadMode
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.decisions import Decisions
from tablehouse.routing.ports import Condition, Peer, WriteHop
from tablehouse.routing.query import NOT_OWNER_PAUSE, Query, counted_forward, partition_count
from tablehouse.routing.refusals import Refusal, explained, last_answer
from tablehouse.routing.tables import RoutedTable
from tablehouse.routing.written import Written
from tablehouse.telemetry import Metrics


class Precondition(NamedTuple):
    """What a caller wants of the row that is there: one of some entity tags, to be there or not; None for any."""

    tags: tuple[str, ...] | None = None
    exists: bool | None = None


class ConditionalWrites:
    """Writes rows if they are as a caller wants; clock is monotonic, in seconds, and deadlines are points on it."""

    def __init__(
        self,
        *,
        view: ClusterView,
        query: Query,
        decisions: Decisions,
        peer: Peer,
        worker_id: str,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._view = view
        self._query = query
        self._decisions = decisions
        self._peer = peer
        self._worker_id = worker_id
        self._clock = clock
        self._metrics = metrics

    def _partition(self, routed: RoutedTable, key_text: bytes) -> int:
        """Return the one partition in which a key can be, whose owner decides.

        Raises InvalidParameter for a key that can be in several, InvalidKey, UriTooLong, and PartitionUnassigned before
        the first assignment.
        """
        key, table = routed.parse(key_text), routed.spec
        if len(key.wires) != 1 or not key.enumerable:
            raise InvalidParameter(
                f"a write of this key of table {table.name} cannot have a condition: producers write keys of format "
                f"{table.source.key} in several ways, so its row may lie in several partitions, and no one worker can "
                "decide",
                table=table.name,
            )
        return partition_of(table.source.partitioner, key.wires[0], partition_count(routed, self._view.current))

    async def write(
        self,
        routed: RoutedTable,
        key_text: bytes,
        record: Record,
        precondition: Precondition,
        *,
        deadline: float,
        request_id: str,
    ) -> Written:
        """Write a row, or delete it, if what is there is as the caller wants.

        Raises PreconditionFailed, InvalidParameter for a key that can be in several partitions, PartitionUnassigned and
        OwnerUnreachable when no owner could be asked, and what Decisions.write raises at the owner.
        """
        partition, stored_key = self._partition(routed, key_text), routed.parse(key_text).stored
        condition = Condition(
            None
            if precondition.tags is None
            else tuple(offset for tag in precondition.tags if (offset := routed.offset_of(partition, tag)) is not None),
            precondition.exists,
        )
        shard, place = routed.spec.shard(partition), (routed.spec.name, partition)
        count = partition_count(routed, self._view.current)
        refusals: list[Refusal] = []
        for again in (False, True):
            if again:
                # Its assignment may be on its way.
                await asyncio.sleep(min(NOT_OWNER_PAUSE, max(0.0, deadline - self._clock())))
            snapshot = self._view.current
            if snapshot.partitions.get(shard.name) != count:
                break
            for candidate in self._query.candidates.of(shard, snapshot, ReadMode.ACTIVE):
                hop = WriteHop(
                    table=routed.spec.name,
                    partition=partition,
                    stored_key=stored_key,
                    key=record.wires[0],
                    value=record.value,
                    condition=condition,
                    table_digest=routed.digest,
                    partitions=count,
                    generation=snapshot.generation,
                    request_id=request_id,
                    timeout=max(0.0, deadline - self._clock()),
                )
                try:
                    offset = await self._ask(candidate.host, routed, hop, deadline)
                except PreconditionFailed:
                    raise
                except (NotOwner, OwnerUnreachable) as error:
                    self._query.candidates.heard(candidate.host, error)
                    refusals.append(Refusal(candidate, error))
                except RequestError as error:
                    refusals.append(Refusal(candidate, error))
                    raise explained(error, refusals, *place, snapshot.generation) from None
                else:
                    self._query.candidates.heard(candidate.host)
                    return Written(routed.spec.name, ((partition, offset),))
        raise explained(last_answer(refusals, *place), refusals, *place, self._view.current.generation)

    async def _ask(self, host: HostInfo, routed: RoutedTable, hop: WriteHop, deadline: float) -> int:
        if host.worker_id == self._worker_id:
            return await self._decisions.write(
                routed,
                hop.partition,
                hop.stored_key,
                key=hop.key,
                value=hop.value,
                condition=hop.condition,
                deadline=deadline,
            )
        if not hop.timeout:
            raise OwnerUnreachable("no time was left to ask it")
        with counted_forward(self._metrics, self._clock):
            return await self._peer.write(host, hop)
