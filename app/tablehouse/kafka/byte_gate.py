"""A bound on the bytes that are under way at once, which lets in whoever came first."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteGate:
    """Lets in as many bytes as fit into `limit`, in the order in which they came; more than that goes in alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def inside(self, size: int) -> AsyncIterator[None]:
        """Wait, for as long as it takes, until that many bytes may be under way; they are until the block ends."""
        size = min(size, self._limit)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._let_in()
        try:
            await turn
            yield
        finally:
            # Cancelled while it waited, it was never in; the others may have been waiting behind it.
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
