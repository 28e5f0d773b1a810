import asyncio
import contextlib

import pytest

from tablehouse.kafka.byte_gate import ByteGate


class Visit:
    """A task that goes in, stays until it is let out, and tells where it is."""

    def __init__(self, gate: ByteGate, size: int) -> None:
        self.is_in = False
        self._leave = asyncio.Event()
        self._task = asyncio.create_task(self._visit(gate, size))

    async def _visit(self, gate: ByteGate, size: int) -> None:
        async with gate.inside(size):
            self.is_in = True
            await self._leave.wait()
        self.is_in = False

    async def leave(self) -> None:
        """Go out."""
        self._leave.set()
        await self._task

    async def cancel(self) -> None:
        """Be cancelled, wherever it is."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self.is_in = False


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def visits(gate: ByteGate, *sizes: int) -> list[Visit]:
    made = [Visit(gate, size) for size in sizes]
    await settle()
    return made


def inside(visits: list[Visit]) -> list[int]:
    return [number for number, visit in enumerate(visits) if visit.is_in]


async def test_as_much_as_fits_is_inside_at_once() -> None:
    made = await visits(ByteGate(10), 4, 6, 1)
    assert inside(made) == [0, 1]

    await made[0].leave()
    await settle()
    assert inside(made) == [1, 2]


async def test_whoever_came_first_goes_in_first_even_when_a_smaller_one_would_fit() -> None:
    made = await visits(ByteGate(10), 6, 6, 1)
    assert inside(made) == [0]

    await made[0].leave()
    await settle()
    assert inside(made) == [1, 2]


async def test_what_is_larger_than_the_gate_goes_in_alone() -> None:
    made = await visits(ByteGate(10), 1, 25, 1)
    assert inside(made) == [0]

    await made[0].leave()
    await settle()
    assert inside(made) == [1]

    await made[1].leave()
    await settle()
    assert inside(made) == [2]


async def test_whoever_is_cancelled_while_waiting_leaves_no_trace_and_holds_up_nobody() -> None:
    gate = ByteGate(10)
    made = await visits(gate, 6, 8, 3)
    assert inside(made) == [0]

    await made[1].cancel()
    await settle()
    assert inside(made) == [0, 2]

    await made[0].leave()
    await made[2].leave()
    assert inside(await visits(gate, 10)) == [0]


async def test_whoever_is_cancelled_at_the_moment_of_being_let_in_gives_the_room_back() -> None:
    gate = ByteGate(10)
    made = await visits(gate, 10, 10, 10)

    # Lets the second in, which does not get to run before it is cancelled.
    leaving = asyncio.create_task(made[0].leave())
    while not leaving.done():
        await asyncio.sleep(0)
        if gate._waiting and len(gate._waiting) == 1:  # noqa: SLF001 - the moment is not to be seen from outside
            break
    await made[1].cancel()
    await leaving
    await settle()
    assert inside(made) == [2]

    await made[2].leave()
    assert inside(await visits(gate, 10)) == [0]


async def test_whoever_fails_inside_gives_the_room_back() -> None:
    gate = ByteGate(10)
    with pytest.raises(ValueError, match="inside"):
        async with gate.inside(10):
            raise ValueError("inside")
    assert inside(await visits(gate, 10)) == [0]
