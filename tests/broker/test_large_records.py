"""Records of several MiB in formats that a thread decodes, on a real broker."""

import json
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from aiokafka import AIOKafkaProducer

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import new_source, running_engine
from tests.support.worker import tables

SCHEMA = {"type": "record", "name": "R", "fields": [{"name": "items", "type": {"type": "array", "items": "string"}}]}
LARGE, SMALL = {"items": ["an item"] * 300_000}, {"items": ["an item"]}


def event(row: Any) -> bytes:
    """Return a change event of Debezium."""
    return json.dumps({"op": "c", "after": row}, separators=(",", ":")).encode()


def avro(row: Any) -> bytes:
    content = BytesIO()
    fastavro.schemaless_writer(content, fastavro.parse_schema(SCHEMA), row)
    return content.getvalue()


async def produce(kafka: EmbeddedKafka, topic: str, *records: tuple[bytes, bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, max_request_size=8 << 20)
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(topic, key=key, value=value)
    finally:
        await producer.stop()


async def test_large_records_of_debezium_and_avro_become_rows_in_their_order_and_bad_ones_dead_letters(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    events, group, _ = await new_source(kafka, max_message_bytes=str(8 << 20))
    values, _, _ = await new_source(kafka, max_message_bytes=str(8 << 20))
    tmp_path.joinpath("r.avsc").write_text(json.dumps(SCHEMA), "utf-8")
    definition = tables(
        f"  - {{name: e, source: {{topic: {events}, key: string, value: json, envelope: debezium}}}}\n",
        f"  - {{name: v, source: {{topic: {values}, key: string, value: "
        "{format: avro, framing: none, schema: r.avsc}}}\n",
    )
    for topic, encode in ((events, event), (values, avro)):
        large = encode(LARGE)
        assert 2 << 20 < len(large) < 8 << 20
        await produce(
            kafka, topic, (b"a", encode(SMALL)), (b"b", large), (b"a", large), (b"b", encode(SMALL)), (b"c", large[:-1])
        )
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(2)
        for table in "ev":
            await running.wait_position(table, 0, 4)
            rows = {key: running.read(table, key).row for key in (b"a", b"b", b"c")}
            payloads = {key: None if row is None else json.loads(row.payload) for key, row in rows.items()}
            assert payloads == {b"a": LARGE, b"b": SMALL, b"c": None}
            assert running.metric("tablehouse_dead_letters_total", table=table, reason="undecodable_value") == 1
        names = {thread.name.partition("_")[0] for thread in threading.enumerate()}
        assert "long-work" in names
