"""Conditional writes on their way to the partition's owner, which decides them (decisions.py)."""

from collections.abc import Callable
from typing import NamedTuple

from tablehouse.errors import InvalidParameter, NotOwner, OwnerUnreachable, PreconditionFailed
from tablehouse.formats.encoding import Record
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import Consistency, HostInfo, ReadMode
from tablehouse.routing.asking import Asker, counted_forward
from tablehouse.routing.candidates import Candidate
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.decisions import Decisions
from tablehouse.routing.ports import Condition, ConditionalWrite, Peer, Terms
from tablehouse.routing.search import Asked, Policy, Search
from tablehouse.routing.tables import RoutedTable, partition_count
from tablehouse.routing.written import Written, WrittenRecord, written_input
from tablehouse.telemetry import Metrics

#: The owner is asked again after a pause, whatever it said: its assignment may be on its way.
_WRITES = Policy(moves_on=(NotOwner, OwnerUnreachable), final=(PreconditionFailed,), asks_all_again=True)
_OF_THE_OWNER = Consistency(ReadMode.ACTIVE)


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
        asker: Asker,
        decisions: Decisions,
        peer: Peer,
        worker_id: str,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._view = view
        self._asker = asker
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
        write = ConditionalWrite(routed.spec.name, partition, stored_key, record.wires[0], record.value, condition)
        count = partition_count(routed, self._view.current)
        asked = Asked(routed, count, _OF_THE_OWNER, deadline, waits_until=deadline, request_id=request_id)

        async def ask(candidate: Candidate, search: Search) -> int:
            return await self._ask(candidate.host, asked, write, search.generation)

        offset = await self._asker.search(asked, partition, _WRITES).run(ask)
        written = WrittenRecord(partition, offset, written_input(routed.spec, partition))
        return Written(routed.spec.name, (written,))

    async def _ask(self, host: HostInfo, asked: Asked, write: ConditionalWrite, generation: int) -> int:
        if host.worker_id == self._worker_id:
            return await self._decisions.write(
                asked.routed,
                write.partition,
                write.stored_key,
                key=write.key,
                value=write.value,
                condition=write.condition,
                deadline=asked.deadline,
            )
        timeout = asked.deadline - self._clock()
        if timeout <= 0:
            raise OwnerUnreachable("no time was left to ask it")
        terms = Terms(0.0, timeout, asked.routed.digest, asked.partitions, generation, asked.request_id)
        with counted_forward(self._metrics, self._clock):
            return await self._peer.write(host, write, terms)
