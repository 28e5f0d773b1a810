"""A worker's own part of a batch: slices of work in turn with everybody else's, up to a bound in bytes."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from tablehouse.errors import PositionNotReached, RequestError
from tablehouse.model import Consistency
from tablehouse.routing.ports import LocalTables, Slice, Wanted
from tablehouse.tasks.reads import SliceResult
from tablehouse.turns import Turns

#: The bytes of rows after which a worker leaves the rest of a batch for the next question. It bounds what waits between
#: two workers, and in the one that was asked for a client that takes its answer slowly.
BYTES_AN_ANSWER = 1 << 20


class Slices:
    """Reads parts of batches here; clock is monotonic, in seconds."""

    def __init__(self, local: LocalTables, turns: Turns, clock: Callable[[], float]) -> None:
        self._local = local
        self._turns = turns
        self._clock = clock

    async def read(
        self, table: str, wanted: Sequence[Wanted], consistency: Consistency, waits_until: float
    ) -> list[Slice]:
        """Read the wanted keys, those of one partition after the other, and say what became of them, in their order.

        Positions of `consistency` are waited for until a point of time on the clock. What is beyond BYTES_AN_ANSWER is
        left out, but never all.
        """
        slices: list[Slice] = []
        size = 0
        for partition, keys in wanted:
            done = 0
            while done < len(keys):
                if size >= BYTES_AN_ANSWER:
                    return slices
                await self._turns.wait()
                rest = keys[done:] if done else keys
                try:
                    result = await self._read_or_wait(table, partition, rest, consistency, waits_until)
                except RequestError as error:
                    slices.append(Slice(partition, len(rest), error))
                    break
                slices.append(Slice(partition, len(result.payloads), result))
                done += len(result.payloads)
                size += result.size
        return slices

    async def _read_or_wait(
        self, table: str, partition: int, keys: Sequence[bytes], consistency: Consistency, waits_until: float
    ) -> SliceResult:
        try:
            return self._local.read_many(table, partition, keys, consistency)
        except PositionNotReached:
            least, left = consistency.least_position(partition), waits_until - self._clock()
            if least is None or left <= 0:
                raise
        # Whether it was reached or not, the copy answers from where it is now.
        with suppress(PositionNotReached):
            await self._local.wait_for_position(table, partition, least, left)
        return self._local.read_many(table, partition, keys, consistency)
