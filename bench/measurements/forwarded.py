"""Reads that another worker answers, over reads that the asked worker answers itself, in a group of two.

Both share the server's core, so their rates together are what that core can do. Two instances of the Kafka Streams
service, the asked one of which forwards as well, do the same after them.
"""

from collections.abc import Mapping, Sequence

from bench.figures import STREAMS
from bench.load import closed_loop, row_requests
from bench.measurements.sharing import keys_by_owner, until_shared
from bench.peers.kafka_streams.streams import KafkaStreams
from bench.peers.peer import looks, running, until_at_rest, until_caught_up
from bench.peers.tablehouse import Tablehouse
from bench.setting import CONNECTIONS, Setting
from bench.source import Source
from bench.usage import usage

LOCAL = "idle GET, local, p50 ms"
FORWARDED = "idle GET, forwarded, p50 ms"
LOCAL_CPU = f"GET, local, {CONNECTIONS} connections, CPU us of both workers"
FORWARDED_CPU = f"GET, forwarded, {CONNECTIONS} connections, CPU us of both workers"
LOCAL_RATE = f"GET, local, {CONNECTIONS} connections, requests/s"
FORWARDED_RATE = f"GET, forwarded, {CONNECTIONS} connections, requests/s"

#: Keys that are looked up, half of which each of two workers owns.
KEYS = 400
#: So that two workers can share them evenly.
PARTITIONS = 4
_LOOPS = 3
_SHARED_SECONDS = 120.0
_PAUSE = 0.5


async def measure(setting: Setting) -> None:
    """Local and forwarded reads in turns: one connection with one request at a time, then many."""
    produced = await setting.topics.provide(setting.sized(200_000, 100_000, PARTITIONS))
    # The second to join has nothing yet: it restores its share as a standby, and then asks for it.
    asked, other = setting.workers(produced.source.topic, 2, takeover_interval="1s")
    async with running(asked), running(other):
        await until_shared((asked, other), PARTITIONS)
        local, forwarded = await divide(asked, produced.source)
        for _ in range(_LOOPS):
            for name, keys in ((LOCAL, local), (FORWARDED, forwarded)):
                seen = await closed_loop(
                    asked.port, row_requests(keys), connections=1, seconds=setting.read_seconds / 2
                )
                setting.figures.add(name, 1e3 * seen.percentile(50))
        for _ in range(_LOOPS):
            for rate, cpu, keys in ((LOCAL_RATE, LOCAL_CPU, local), (FORWARDED_RATE, FORWARDED_CPU, forwarded)):
                await _read(setting, (asked, other), keys, rate, cpu)
    await _streams(setting, produced.source)
    figures = setting.figures
    setting.say(f"idle GET: local {figures.median(LOCAL):.2f} ms, forwarded {figures.median(FORWARDED):.2f} ms, p50")
    setting.say(
        f"{CONNECTIONS} connections: local {figures.median(LOCAL_RATE):,.0f} GET/s, {figures.median(LOCAL_CPU):.0f} us "
        f"of CPU; forwarded {figures.median(FORWARDED_RATE):,.0f} GET/s, {figures.median(FORWARDED_CPU):.0f} us; "
        f"forwarded by {STREAMS} {figures.median(FORWARDED_RATE, STREAMS):,.0f} GET/s"
    )


async def _streams(setting: Setting, source: Source) -> None:
    """Two instances of the Kafka Streams service."""
    application = setting.new_folder("streams").name
    asked, other = (
        KafkaStreams(
            setting.new_folder("streams"), setting.cores, setting.bootstrap, source.topic,
            # Without it the second one would wait for a probing rebalance, ten minutes later.
            application=application, options=(f"-Dacceptable.lag={source.records}",),
        )
        for _ in range(2)
    )  # fmt: skip
    async with running(asked), running(other):
        for instance in (asked, other):
            await until_caught_up(instance, 1)
        owned: Mapping[int, Sequence[bytes]] = {}
        async for _ in looks(asked, _PAUSE, _SHARED_SECONDS):
            owned = await asked.keys_by_owner(map(source.key, range(KEYS)))
            if other.port in owned:
                break
        for instance in (asked, other):
            await until_at_rest(instance)
        # The first loop is for the compilers of both.
        for number in range(1 + _LOOPS):
            for rate, keys in ((LOCAL_RATE, owned[asked.port]), (FORWARDED_RATE, owned[other.port])):
                seen = await closed_loop(
                    asked.port, row_requests(keys), connections=CONNECTIONS, seconds=setting.read_seconds / 2
                )
                if number:
                    setting.figures.add(rate, seen.rate, STREAMS)


async def _read(
    setting: Setting, workers: tuple[Tablehouse, Tablehouse], keys: Sequence[bytes], rate: str, cpu: str
) -> None:
    """Read some keys of the first worker on many connections."""
    before = [usage(worker.pid) for worker in workers]
    seen = await closed_loop(
        workers[0].port, row_requests(keys), connections=CONNECTIONS, seconds=setting.read_seconds / 2
    )
    after = [usage(worker.pid) for worker in workers]
    used = sum(now.cpu for now in after) - sum(then.cpu for then in before)
    # As in reads.py: the loop's own warm-up is in the CPU and not in its requests, and has the same rate.
    setting.figures.add(rate, seen.rate)
    setting.figures.add(cpu, 1e6 * used / (seen.rate * (after[0].at - before[0].at)))


async def divide(asked: Tablehouse, source: Source) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Return keys that the asked one of two workers owns, and keys that the other owns."""
    owned = await keys_by_owner(asked, map(source.key, range(min(KEYS, source.keys))))
    return owned[asked.internal_url], [key for url, keys in owned.items() if url != asked.internal_url for key in keys]
