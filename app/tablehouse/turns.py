"""Shares the event loop between long and short work.

Long work is done in pieces of about a millisecond. With asyncio.sleep(0) between them, every task with long work would
do a piece in each iteration of the loop, and a read, or a connection to be accepted, would wait for all of these. Here
only one piece is done per iteration: several of one task, then several of the next, first come, first served.

Work that cannot be split is done in a thread. Python switches between threads every 5 ms, so the loop waits at most
that long after each wait for I/O, unless a single C call takes longer. There is only one thread, which does one thing
at a time: with two threads the loop would wait twice as long, and decoded large values take many times their size in
memory.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, cast

#: Pieces that a task may do in consecutive iterations while others wait. Its data, mainly a memtable, is then still in
#: the CPU caches: four replaying tasks take 3.2 us per record, and 4.4 us if they alternate after each piece.
PIECES_IN_A_ROW = 20

_Result = TypeVar("_Result")

#: Work in pieces. Between two pieces it yields None, or a function to run in the thread, and receives its result or
#: exception. The function shares no mutable state with the event loop.
Work = Generator[Callable[[], Any] | None, Any, _Result]


def finish(work: Work[_Result]) -> _Result:
    """Do all pieces of some work at once, and return its result."""
    go_on: Callable[[], Callable[[], Any] | None] = partial(next, work)
    while True:
        try:
            function = go_on()
        except StopIteration as end:
            result: _Result = end.value
            return result
        try:
            go_on = partial(work.send, None if function is None else function())
        except Exception as error:  # noqa: BLE001 - it is raised at the yield
            go_on = partial(work.throw, error)


class Turns:
    """Lets one waiting task run per iteration of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._giving = False
        #: The task that ran last, and its number of consecutive turns. Weak, since a failed task keeps references to
        #: its data.
        self._last: weakref.ref[asyncio.Task[object]] | None = None
        self._in_a_row = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="long-work")

    async def wait(self) -> None:
        """Yield to the event loop, and return at this task's turn."""
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[object]", asyncio.current_task())
        turn: asyncio.Future[None] = loop.create_future()
        goes_on = self._last is not None and self._last() is task and self._in_a_row < PIECES_IN_A_ROW
        if goes_on:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        if not self._giving:
            self._giving = True
            loop.call_soon(self._give)
        await turn
        self._last = weakref.ref(task)
        self._in_a_row = self._in_a_row + 1 if goes_on else 1

    async def finish(self, work: Work[_Result]) -> _Result:
        """Do some work, yielding to other tasks between its pieces, and return its result.

        If this is cancelled while the thread works, the thread finishes its function, and the result is dropped.
        """
        go_on: Callable[[], Callable[[], Any] | None] = partial(next, work)
        while True:
            try:
                function = go_on()
            except StopIteration as end:
                result: _Result = end.value
                return result
            if function is None:
                await self.wait()
                go_on = partial(next, work)
                continue
            try:
                made = await self._in_thread(function)
            except Exception as error:  # noqa: BLE001 - it is raised at the yield
                go_on = partial(work.throw, error)
            else:
                go_on = partial(work.send, made)

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _give(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        self._giving = bool(self._waiting)
        if self._giving:
            asyncio.get_running_loop().call_soon(self._give)
