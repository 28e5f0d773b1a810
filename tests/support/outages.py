"""Brokers that are gone for a while, and are back when the block ends, however it ends.

Whoever leaves a block by an assertion closes clients next, and some of aiokafka's wait for a broker without end.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator

from tablehouse.testing.kafka import EmbeddedKafka


@contextlib.contextmanager
def paused(kafka: EmbeddedKafka) -> Iterator[None]:
    """Have a broker whose connections stay open and that answers nothing."""
    kafka.pause()
    process = kafka._nodes[0].process  # noqa: SLF001
    assert process is not None
    # The signal takes effect a moment after it was sent, in which a request can still be answered.
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    try:
        yield
    finally:
        kafka.resume()


@contextlib.asynccontextmanager
async def killed(kafka: EmbeddedKafka) -> AsyncIterator[None]:
    """Have no broker."""
    kafka.kill()
    try:
        yield
    finally:
        await asyncio.to_thread(kafka.restart)
