"""SIGKILL of one of two programs with standbys of each other's partitions: when its keys are answered again."""

import asyncio
import time
from collections.abc import Sequence

from bench.http_client import Client
from bench.measurements.forwarded import KEYS, PARTITIONS, divide
from bench.measurements.sharing import until_shared
from bench.peers.kafka_streams.streams import KafkaStreams
from bench.peers.peer import AnyPeer, running, until_at_rest, until_caught_up
from bench.peers.tablehouse import Tablehouse
from bench.setting import Setting
from bench.source import Source

STANDBY = "after SIGKILL of the owner, ms to the first row from a standby"
OWNED = "after SIGKILL of the owner, s to rows of all its keys from the next owner"
REPLAYED = "after SIGKILL of the owner, changelog records replayed"
#: The same for all programs: how long the group waits for one that is silent.
SESSION_SECONDS = 6

_ROWS = 1_000_000
_PATIENCE = 60.0
_PAUSE = 0.005


async def measure(setting: Setting) -> None:
    """Measure Tablehouse and Kafka Streams, once each: most of it is the session's time-out."""
    produced = await setting.topics.provide(setting.sized(_ROWS, _ROWS, PARTITIONS))
    await _tablehouse(setting, produced.source)
    await _streams(setting, produced.source)


async def _tablehouse(setting: Setting, source: Source) -> None:
    session = f"{SESSION_SECONDS}s"
    asked, killed = setting.workers(source.topic, 2, session_timeout=session, takeover_interval="1s")
    async with running(asked), running(killed):
        await until_shared((asked, killed), PARTITIONS)
        for worker in (asked, killed):
            await until_caught_up(worker, source.records)
            await until_at_rest(worker)
        _, owned_by_killed = await divide(asked, source)
        paths = [f"/tables/table/{key.decode()}" for key in owned_by_killed]
        before = await _replayed(asked)
        killed.kill()
        began = time.monotonic()
        first = await _until(asked, paths[:1], "")
        await _until(asked, paths, "?read=active")
        owned = time.monotonic() - began
        figures, replayed = setting.figures, await _replayed(asked) - before
        figures.add(STANDBY, 1e3 * (first - began), asked.name)
        figures.add(OWNED, owned, asked.name)
        figures.add(REPLAYED, replayed, asked.name)
        setting.say(
            f"{asked.name}: first row from a standby after {1e3 * (first - began):.0f} ms, all keys from the next "
            f"owner after {owned:.1f} s, {replayed:.0f} records replayed"
        )


async def _streams(setting: Setting, source: Source) -> None:
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
            await until_at_rest(instance, _PATIENCE)
        async with Client(asked.port) as client:
            every = [f"/tables/table/{source.key(number).decode()}" for number in range(KEYS)]
            paths = [path for path in every if (await client.get(path))[0] != 200]  # noqa: PLR2004
        killed.kill()
        began = time.monotonic()
        owned = await _until(asked, paths, "") - began
        setting.figures.add(OWNED, owned, asked.name)
        setting.say(f"{asked.name}: all {len(paths)} keys from the next owner after {owned:.1f} s")


async def _replayed(worker: Tablehouse) -> float:
    async with Client(worker.port) as client:
        _, body = await client.get("/metrics")
    lines = body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("tablehouse_restore_records_total{"))


async def _until(peer: AnyPeer, paths: Sequence[str], query: str) -> float:
    """Ask for each path until it is a row, and return when the last was."""
    deadline = time.monotonic() + _PATIENCE
    async with Client(peer.port) as client:
        for path in paths:
            while (await client.get(path + query))[0] != 200:  # noqa: PLR2004
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{peer.name} has no row at {path}{query} {_PATIENCE:.0f} s after the kill")
                await asyncio.sleep(_PAUSE)
    return time.monotonic()
