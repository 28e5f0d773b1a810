import asyncio
import threading
from collections.abc import Callable
from functools import partial

from tablehouse.turns import PIECES_IN_A_ROW, Turns, Work, finish


async def test_one_of_all_that_wait_has_its_turn_in_a_round_and_goes_on_for_some_while_the_next_wait() -> None:
    turns, done = Turns(), []
    rounds = 0

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    async def work(name: str) -> None:
        for _ in range(PIECES_IN_A_ROW + 2):
            await turns.wait()
            done.append((name, rounds))

    counting = asyncio.create_task(count_rounds())
    await asyncio.gather(*(work(name) for name in "abc"))
    counting.cancel()
    row = PIECES_IN_A_ROW
    assert [name for name, _ in done] == [*"a" * row, *"b" * row, *"c" * row, *"aabbcc"]
    assert len({at for _, at in done}) == len(done)


async def test_one_that_is_cancelled_while_it_waits_costs_the_others_nothing() -> None:
    turns = Turns()
    waiting = [asyncio.create_task(turns.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 5)
    await asyncio.wait_for(turns.wait(), 5)
    assert [one.cancelled() for one in waiting] == [True, True, False]


def in_thread(name: str, call: Callable[[str], object]) -> Work[object]:
    """Return work that has a function called in the thread, and gives what came of it, or says what it raised."""
    try:
        made: object = yield partial(call, name)
    except ValueError as error:
        return f"failed: {error}"
    return made


class Gate:
    """A function that says that it was called, and returns when it is let go."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.threads: set[int] = set()
        self.enters, self.leaves = threading.Event(), threading.Event()

    def __call__(self, name: str) -> str:
        """Wait to be let go."""
        self.called.append(name)
        self.threads.add(threading.get_ident())
        self.enters.set()
        assert self.leaves.wait(10)
        return name


def fail(name: str) -> None:
    raise ValueError(name)


async def test_what_cannot_be_cut_into_pieces_is_done_by_a_thread_while_the_loop_goes_on() -> None:
    turns, gate = Turns(), Gate()
    working = asyncio.create_task(turns.finish(in_thread("a", gate)))
    await asyncio.wait_for(asyncio.to_thread(gate.enters.wait, 10), 10)
    assert not working.done()
    await asyncio.wait_for(turns.wait(), 5)
    gate.leaves.set()
    assert await asyncio.wait_for(working, 10) == "a"
    assert threading.get_ident() not in gate.threads


async def test_what_the_thread_raises_is_raised_where_the_work_waits_for_it() -> None:
    turns = Turns()
    assert await turns.finish(in_thread("a", fail)) == "failed: a"
    assert finish(in_thread("a", fail)) == "failed: a"
    assert finish(in_thread("a", str.upper)) == "A"


async def test_the_thread_does_one_thing_at_a_time_also_when_the_one_that_waits_for_it_is_cancelled() -> None:
    turns, gate = Turns(), Gate()
    working = [asyncio.create_task(turns.finish(in_thread(name, gate))) for name in "abc"]
    await asyncio.wait_for(asyncio.to_thread(gate.enters.wait, 10), 10)
    working[0].cancel()
    working[1].cancel()
    await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({working[1]})
    assert gate.called == ["a"], "the next waits until the thread is done with what was given up"
    gate.leaves.set()
    assert await asyncio.wait_for(working[2], 10) == "c"
    assert (gate.called, len(gate.threads)) == (["a", "c"], 1)
    assert [one.cancelled() for one in working] == [True, True, False]
