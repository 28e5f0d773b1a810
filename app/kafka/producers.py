"""How a producer ends: in time, whatever waits in it."""

import asyncio
from contextlib import suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed

#: How long a producer that is not needed any more may take to stop, in seconds.
STOP_TIMEOUT = 2.0


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop without waiting for what cannot be delivered: its outcome is unknown anyway."""
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=STOP_TIMEOUT)
    if not stopping.done():
        stopping.cancel()
        producer._message_accumulator.fail_all(ProducerClosed())
        sender = producer._sender.sender_task
        # Told to end, aiokafka's sender waits for the answers in flight; each further cancellation ends one wait.
        while sender is not None and not sender.done():
            sender.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError, KafkaError):
            await stopping
        await producer.client.close()
