"""Documents that may take long to make: made once for all callers that ask at the same time, and kept briefly."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

#: Seconds for which a document is kept at most, and how many times as long as the processor needed to make it. So one
#: that is requested continuously takes a twentieth of the processor.
KEPT_SECONDS = 1.0
_KEPT_TIMES = 20

#: A document that takes the processor less, in seconds, is not kept: it is always as it is now.
_NOT_KEPT_BELOW = 0.005

_Document = TypeVar("_Document")


class Briefly(Generic[_Document]):
    """A document that is made again once the one before is too old.

    clock is monotonic, and spent says for how long this process has had the processor; both in seconds.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[_Document]],
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.process_time,
    ) -> None:
        self._make = make
        self._clock = clock
        self._spent = spent
        self._document: asyncio.Task[_Document] | None = None
        self._kept_until = 0.0

    async def get(self) -> _Document:
        """Return the document; raises what making it raises, which is not kept."""
        document = self._document
        if document is None or (document.done() and (_failed(document) or self._clock() >= self._kept_until)):
            document = self._document = asyncio.ensure_future(self._made())
        # A client that goes away ends only its own wait.
        return await asyncio.shield(document)

    async def _made(self) -> _Document:
        began = self._spent()
        document = await self._make()
        took = self._spent() - began
        self._kept_until = 0.0 if took < _NOT_KEPT_BELOW else self._clock() + min(KEPT_SECONDS, _KEPT_TIMES * took)
        return document


def _failed(document: asyncio.Task[_Document]) -> bool:
    return document.cancelled() or document.exception() is not None
