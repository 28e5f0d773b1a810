"""Sharing the event loop between long work and short.

Long work is done in pieces of about a millisecond. With asyncio.sleep(0) between them every task that has some would do
a piece in each round of the loop, and a reader, or a connection to be accepted, would wait for all of these. Here one
of the pieces that wait is done in a round: some of one task, then some of the next, first come, first served.

Work that cannot be cut into pieces is done by a thread. Python switches between threads every 5 ms, so the loop waits
for that long at most whenever it has waited for something, as long as no single call into C takes longer. There is one
thread, and it does one thing at a time: with two of them the loop would wait twice as long, and what large values are
decoded to takes many times their size.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, cast

#: Pieces a task may do in consecutive rounds while others wait. What it works on, a memtable above all, is then still
#: in the processor's caches: four tasks that replay take 3.2 us a record, and 4.4 us when each piece is another task's.
PIECES_IN_A_ROW = 20

_Result = TypeVar("_Result")

#: Work in pieces. Between two pieces it yields None, or a function for the thread, which is given what that returns or
#: raises. The function shares nothing that changes with the event loop.
Work = Generator[Callable[[], Any] | None, Any, _Result]


def finish(work: Work[_Result]) -> _Result:
    """Do all the pieces of some work at once, and return what it returns."""
    go_on: Callable[[], Callable[[], Any] | None] = partial(next, work)
    while True:
        try:
            function = go_on()
        except StopIteration as end:
            result: _Result = end.value
            return result
        try:
            go_on = partial(work.send, None if function is None else function())
        except Exception as error:  # noqa: BLE001 - it is raised where the function was yielded
            go_on = partial(work.throw, error)


class Turns:
    """Gives one of those who wait its turn in each round of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._giving = False
        #: Whose turn it was last, and how many it has had in a row. Weak, as a failed task holds on to what it worked
        #: with.
        self._last: weakref.ref[asyncio.Task[object]] | None = None
        self._in_a_row = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="long-work")

    async def wait(self) -> None:
        """Let others have the loop, and return when it is this one's turn."""
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
        """Do some work, with turns for others wherever it yields, and return what it returns.

        When this is cancelled while the thread works, the thread finishes what it is at, and the result is dropped.
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
            except Exception as error:  # noqa: BLE001 - it is raised where the function was yielded
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
