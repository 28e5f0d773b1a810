"""A limit on the bytes in flight, first come, first served."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteGate:
    """Admits up to `limit` bytes at a time, in order of arrival; a larger request is admitted alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def inside(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes are admitted, without a time limit; they are released when the block ends."""
        size = min(size, self._limit)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._let_in()
        try:
            await turn
            yield
        finally:
            # If cancelled while waiting, it was never admitted, but others may have been waiting behind it.
            if not turn.cancelled():
                self._free += size
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if size > self._free:
                    return
                self._free -= size
                turn.set_result(None)
            self._waiting.popleft()
