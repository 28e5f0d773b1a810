"""SIGKILL of one of two programs that ingest and have standbys of each other's partitions.

When the dead one's keys are answered again, and what the next owner replays.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from bench.http_client import Client
from bench.measurements.forwarded import KEYS, PARTITIONS, divide
from bench.measurements.sharing import until_shared
from bench.peers.kafka_streams.streams import KafkaStreams
from bench.peers.peer import AnyPeer, running, until_at_rest, until_caught_up
from bench.peers.tablehouse import Tablehouse
from bench.setting import Setting
from bench.source import Source
from bench.updates import Updates

STANDBY = "after SIGKILL of the owner, ms to the first row from a standby"
OWNED = "after SIGKILL of the owner, s to rows of all its keys from the next owner"
REPLAYED = "after SIGKILL of the owner, changelog records replayed"
#: At most: source records from the last one that each standby had applied, when it was looked at just before the kill,
#: to the end of its partition just after. The owner can have applied no others, and it appends to the changelog a row
#: for each record or fewer. What the standby replays between the look and the kill counts in both figures.
LACKED = "SIGKILL of the owner: records that its standbys lacked, at most"
#: The same for all programs: how long the group waits for one that is silent.
SESSION_SECONDS = 6

_ROWS = 1_000_000
#: Records a second that come into the topic for either program, and for how many seconds before the kill.
_RATE, _LEAD = 1_000, 2.0
#: Every so many keys are updated.
_STEP = 100
_TIMEOUT_SECONDS = 60.0
_PAUSE = 0.005


async def measure(setting: Setting) -> None:
    """Measure Tablehouse and Kafka Streams in turns, in new groups each time: how long it takes varies."""
    produced = await setting.topics.provide(setting.sized(_ROWS, _ROWS, PARTITIONS, updated_by="failover"))
    updates = Updates(produced.source, _STEP)
    for _ in range(setting.rounds):
        await _tablehouse(setting, produced.source, updates)
        await _streams(setting, produced.source, updates)


async def _tablehouse(setting: Setting, source: Source, updates: Updates) -> None:
    session = f"{SESSION_SECONDS}s"
    asked, killed = setting.workers(source.topic, 2, session_timeout=session, takeover_interval="1s")
    async with running(asked), running(killed):
        await until_shared((asked, killed), PARTITIONS)
        for worker in (asked, killed):
            await until_caught_up(worker, source.records)
            await until_at_rest(worker)
        _, owned_by_killed = await divide(asked, source)
        paths = [f"/tables/table/{key.decode()}" for key in owned_by_killed]
        async with updates.produced(setting.bootstrap, _RATE), _consumer(setting.bootstrap) as consumer:
            await asyncio.sleep(_LEAD)
            before = await _look(asked)
            killed.kill()
            began = time.monotonic()
            first, ends = await asyncio.gather(
                _until(asked, paths[:1], ""),
                consumer.end_offsets([TopicPartition(source.topic, partition) for partition in before.standbys]),
            )
            owned = await _until(asked, paths, "?read=active") - began
            replayed = (await _look(asked)).replayed - before.replayed
        lacked = sum(ends.values()) - sum(position + 1 for position in before.standbys.values())
        figures = setting.figures
        figures.add(STANDBY, 1e3 * (first - began), asked.name)
        figures.add(OWNED, owned, asked.name)
        figures.add(REPLAYED, replayed, asked.name)
        figures.add(LACKED, lacked, asked.name)
        setting.say(
            f"{asked.name}: first row from a standby after {1e3 * (first - began):.0f} ms, all keys from the next "
            f"owner after {owned:.1f} s, {replayed:.0f} records replayed where at most {lacked} were lacking"
        )


async def _streams(setting: Setting, source: Source, updates: Updates) -> None:
    application = setting.new_folder("streams").name
    options = ("-Dstandbys=1", f"-Dsession.ms={1000 * SESSION_SECONDS}")
    asked, killed = (
        KafkaStreams(
            setting.new_folder("streams"), setting.cores, setting.bootstrap, source.topic,
            application=application, options=options,
        )
        for _ in range(2)
    )  # fmt: skip
    async with running(asked), running(killed):
        for instance in (asked, killed):
            await until_caught_up(instance, 1)
            await until_at_rest(instance, _TIMEOUT_SECONDS)
        owned_by = await asked.keys_by_owner(map(source.key, range(KEYS)))
        paths = [f"/tables/table/{key.decode()}" for key in owned_by[killed.port]]
        async with updates.produced(setting.bootstrap, _RATE):
            await asyncio.sleep(_LEAD)
            killed.kill()
            began = time.monotonic()
            owned = await _until(asked, paths, "") - began
        setting.figures.add(OWNED, owned, asked.name)
        setting.say(f"{asked.name}: all {len(paths)} keys from the next owner after {owned:.1f} s")


class _Look(NamedTuple):
    """What a worker said in one answer: changelog records replayed so far, and its standbys' positions by partition."""

    replayed: int
    standbys: Mapping[int, int]


async def _look(worker: Tablehouse) -> _Look:
    async with Client(worker.port) as client:
        _, body = await client.get("/metrics")
    families = text_string_to_metric_families(body.decode())
    samples = [sample for family in families for sample in family.samples]
    standbys = {
        sample.labels["partition"]
        for sample in samples
        if sample.name == "tablehouse_partition_state" and sample.labels["state"] == "standby"
    }
    return _Look(
        sum(int(sample.value) for sample in samples if sample.name == "tablehouse_restore_records_total"),
        {
            int(sample.labels["partition"]): int(sample.value)
            for sample in samples
            if sample.name == "tablehouse_applied_offset" and sample.labels["partition"] in standbys
        },
    )


@asynccontextmanager
async def _consumer(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect to the broker, to ask it where topics end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _until(peer: AnyPeer, paths: Sequence[str], query: str) -> float:
    """Ask for each path until it is a row, and return when the last was."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    async with Client(peer.port) as client:
        for path in paths:
            while (await client.get(path + query))[0] != 200:  # noqa: PLR2004
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{peer.name} has no row at {path}{query} {_TIMEOUT_SECONDS:.0f} s after the kill"
                    )
                await asyncio.sleep(_PAUSE)
    return time.monotonic()
