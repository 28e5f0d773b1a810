"""How far a standby is behind its active, in time, while the group ingests half of what it can."""

import asyncio
import os
import signal
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from bench.http_client import Client
from bench.load import percentile
from bench.measurements.sharing import until_shared
from bench.peers.peer import running, until_at_rest, until_caught_up
from bench.peers.tablehouse import Tablehouse
from bench.setting import Setting
from bench.source import Source, create_topic, produce
from tablehouse.formats.partitioners import partition_of

P50 = "standby behind its active at half of the maximum ingest, p50 ms"
P99 = "standby behind its active at half of the maximum ingest, p99 ms"
MAX = "standby behind its active at half of the maximum ingest, longest ms"
MAXIMUM = "ingest of a backlog by two workers with standbys, records/s"
RATE = "records/s while the standbys' lag was sampled"

_TOPIC = "source-of-a-steady-flow"
_PARTITIONS = 4
_KEYS = 200_000
_BACKLOG = 600_000
#: Seconds of steady flow, between two sends of a batch to each partition, and between two samples.
_FLOW, _SEND, _SAMPLE = 10.0, 0.02, 0.02
#: More than a partition gets in one send.
_BATCH_BYTES = 512 * 1024
_PAUSE = 0.05
_TIMEOUT_SECONDS = 120.0


class _Seen(NamedTuple):
    """A copy's position, read at some time from `asked` to `answered`."""

    position: int
    asked: float
    answered: float


async def measure(setting: Setting) -> None:
    """Measure the maximum on a backlog, then sample positions while batches come at half of that."""
    await create_topic(setting.bootstrap, _TOPIC, _PARTITIONS)
    first = setting.sized(_KEYS, _KEYS, _PARTITIONS)
    await produce(setting.bootstrap, _TOPIC, first)
    async with AsyncExitStack() as stack:
        workers = setting.workers(_TOPIC, 2, takeover_interval="1s", session_timeout="5m")
        for worker in workers:
            await stack.enter_async_context(running(worker))
        await until_shared(workers, _PARTITIONS)
        backlog = setting.sized(_BACKLOG, _KEYS, _PARTITIONS)
        maximum = await _maximum(setting, workers, first.records, backlog)
        for worker in workers:
            await until_caught_up(worker, first.records + backlog.records)
            await until_at_rest(worker)
        flow = setting.sized(int(maximum / 2 * _FLOW), _KEYS, _PARTITIONS)
        clients = [await stack.enter_async_context(Client(worker.port)) for worker in workers]
        samples = _Samples()
        sampling = [
            asyncio.create_task(samples.keep_sampling(worker, client))
            for worker, client in zip(workers, clients, strict=True)
        ]
        try:
            rate = await _produce_steadily(setting.bootstrap, flow, flow.records / _FLOW)
        finally:
            for task in sampling:
                task.cancel()
            await asyncio.gather(*sampling, return_exceptions=True)
        for worker in workers:
            await until_caught_up(worker, first.records + backlog.records + flow.records)
    behind = sorted(samples.behind())
    figures = setting.figures
    figures.add(MAXIMUM, maximum)
    figures.add(RATE, rate)
    for name, percent in ((P50, 50), (P99, 99), (MAX, 100)):
        figures.add(name, 1e3 * percentile(behind, percent))
    setting.say(
        f"{rate:,.0f} of {maximum:,.0f} records/s: a standby is behind by p50 {figures.median(P50):.0f} ms, p99 "
        f"{figures.median(P99):.0f} ms, at most {figures.median(MAX):.0f} ms, in {len(behind):,} samples"
    )


async def _maximum(setting: Setting, workers: Sequence[Tablehouse], before: int, backlog: Source) -> float:
    """Return the records/s of both workers' actives together, standbys that follow included in the work."""
    with ExitStack() as stack:
        for worker in workers:
            os.kill(worker.pid, signal.SIGSTOP)
            stack.callback(os.kill, worker.pid, signal.SIGCONT)
        await produce(setting.bootstrap, _TOPIC, backlog)
    begin = await _reaches(workers, before + 1)
    end = await _reaches(workers, before + backlog.records)
    return (end[0] - begin[0]) / (end[1] - begin[1])


async def _reaches(workers: Sequence[Tablehouse], count: int) -> tuple[int, float]:
    """Wait until the actives have applied so many records; return how many, and when."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(worker.port)) for worker in workers]
        while True:
            tasks = await asyncio.gather(
                *(worker.tasks(client) for worker, client in zip(workers, clients, strict=True))
            )
            applied = sum(task.position + 1 for each in tasks for task in each if task.state == "active")
            if applied >= count:
                return applied, time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{applied} of {count} records were ingested in {_TIMEOUT_SECONDS:.0f} s")
            await asyncio.sleep(_PAUSE)


async def _produce_steadily(bootstrap: str, source: Source, rate: float) -> float:
    """Send batches that were built before at fixed times, and return how many records a second were acknowledged."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=_BATCH_BYTES
    )
    await producer.start()
    try:
        rounds = _batches(producer, source, int(rate * _SEND))
        begin = time.monotonic()
        sent = []
        for number, batches in enumerate(rounds):
            await asyncio.sleep(max(0.0, begin + number * _SEND - time.monotonic()))
            for partition, batch in batches.items():
                sent.append(await producer.send_batch(batch, _TOPIC, partition=partition))
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await asyncio.gather(*sent)
        return source.records / (time.monotonic() - begin)
    finally:
        await producer.stop()


def _batches(producer: Any, source: Source, count: int) -> list[dict[int, Any]]:
    """Divide a source into rounds of so many records, each of which is a batch for each partition."""
    now = time.time_ns() // 1_000_000
    rounds: list[dict[int, Any]] = []
    for number, (key, value) in enumerate(source.contents()):
        if number % count == 0:
            rounds.append(defaultdict(producer.create_batch))
        partition = partition_of("murmur2", key, source.partitions)
        if rounds[-1][partition].append(key=key, value=value, timestamp=now) is None:
            raise RuntimeError(f"{count} records do not fit into a batch for each of {source.partitions} partitions")
    return rounds


class _Samples:
    """Positions of actives and standbys by partition."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, defaultdict[int, list[_Seen]]] = defaultdict(lambda: defaultdict(list))

    async def keep_sampling(self, worker: Tablehouse, client: Client) -> None:
        """Look at a worker's copies until cancelled."""
        while True:
            asked = time.monotonic()
            tasks = await worker.tasks(client)
            answered = time.monotonic()
            for task in tasks:
                self._seen[task.state][task.partition].append(_Seen(task.position, asked, answered))
            await asyncio.sleep(max(0.0, asked + _SAMPLE - answered))

    def behind(self) -> list[float]:
        """Return for each sample of a standby for how many seconds it had lacked what the active had, at most.

        That is since the last time that the active was seen with nothing more than the standby had, so a standby that
        lacks nothing counts with the time since the last look at the active, up to _SAMPLE.
        """
        found = []
        for partition, standbys in self._seen["standby"].items():
            actives = self._seen["active"][partition]
            positions = [active.position for active in actives]
            asked = [active.asked for active in actives]
            for standby in standbys:
                # Later looks at the active say nothing of what it had by then.
                number = min(bisect_right(positions, standby.position), bisect_left(asked, standby.answered))
                if number:
                    found.append(standby.answered - asked[number - 1])
        return found
