"""Sharing the event loop between long work and short.

Long work is done in pieces of about a millisecond. With asyncio.sleep(0) between them every task that has some would do
a piece in each round of the loop, and a reader, or a connection to be accepted, would wait for all of these. Here one
of the pieces that wait is done in a round, first come, first served.
"""

import asyncio
from collections import deque


class Turns:
    """Gives one of those who wait its turn in each round of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._giving = False

    async def wait(self) -> None:
        """Let others have the loop, and return when it is this one's turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if not self._giving:
            self._giving = True
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        self._giving = bool(self._waiting)
        if self._giving:
            asyncio.get_running_loop().call_soon(self._give)
