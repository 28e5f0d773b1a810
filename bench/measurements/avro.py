"""Ingest of Avro beside that of JSON: the same records, one worker after the other."""

import httpx

from bench.avro import SCHEMA, in_avro
from bench.measurements import ingest
from bench.peers.peer import running, until_caught_up
from bench.setting import Setting
from bench.source import create_topic, produce
from tablehouse.testing.schema_registry import EmbeddedRegistry

AVRO, JSON = "Tablehouse, Avro", "Tablehouse, JSON"

_RECORDS, _KEYS, _PARTITIONS = 1_000_000, 200_000, 4


async def measure(setting: Setting) -> None:
    """Ingest both in turn, as often as there are rounds."""
    source = setting.sized(_RECORDS, _KEYS, _PARTITIONS)
    produced = await setting.topics.provide(source)
    topic = f"{source.topic}-avro"
    with EmbeddedRegistry(setting.folder / "registry") as registry:
        schema_id = await _register(registry.url, f"{topic}-value")
        await create_topic(setting.bootstrap, topic, source.partitions)
        await produce(setting.bootstrap, topic, source, in_avro(source, schema_id))
        for _ in range(setting.rounds):
            for name, read in ((JSON, source.topic), (AVRO, topic)):
                value = "avro" if name == AVRO else "json"
                worker = setting.worker(read, value=value, schema_registry=registry.url)
                worker.name = name
                async with running(worker):
                    await ingest.ingest(setting, worker, produced)
                    await until_caught_up(worker, source.records)
                worker.wipe()
    share = setting.figures.over(ingest.RATE, JSON, AVRO)
    setting.say(f"Avro is ingested at {share:.2f}x the rate of JSON")


async def _register(url: str, subject: str) -> int:
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(f"/subjects/{subject}/versions", json={"schema": SCHEMA})
        answer.raise_for_status()
        return int(answer.json()["id"])
