"""Records as other clients than ours write them, and batches as a broker's disk and compaction leave them."""

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.batches import (
    ATTRIBUTES_AT,
    CRC_AT,
    LAST_OFFSET_AT,
    RECORDS_AT,
    TIMESTAMPS_AT,
    append_batch,
    batch_of,
    first_and_after,
    log_folder,
    log_of,
    old_batch,
    read_through,
    renamed,
    with_crc,
)
from tests.support.engine import new_source, running_engine
from tests.support.kafka import create_topic, produce, produce_with_codec, unique
from tests.support.polling import until

#: Settings of a topic that is compacted as soon as anything is appended, and whose tombstones and markers go at once.
COMPACTED = {
    "cleanup_policy": "compact",
    "segment_ms": "1",
    "min_cleanable_dirty_ratio": "0",
    "min_compaction_lag_ms": "0",
    "delete_retention_ms": "0",
}


async def test_a_header_name_that_is_not_utf_8_stops_no_worker_and_its_record_becomes_a_row(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    latin = renamed(batch_of((0, b"bad", b'{"v":1}', [("cafX", b"x")])), b"cafX", b"caf\xe9")
    await produce(kafka.bootstrap_servers, topic, [(b"first", b"{}", 0)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await append_batch(kafka.bootstrap_servers, topic, latin)
        await running.wait_position("t", 0, 1)
        assert running.read("t", b"bad").row is not None
    # It is the last record applied, so what is looked at after a restart to see whether the source is still the same.
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await produce(kafka.bootstrap_servers, topic, [(b"last", b"{}", 0)])
        await running.wait_position("t", 0, 2)
        assert all(running.read("t", key).row is not None for key in (b"first", b"bad", b"last"))


async def test_a_transaction_marker_whose_record_compaction_has_removed_is_stepped_over(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka, 1, **COMPACTED)
    name = unique("transaction")
    async with (
        started(AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)) as plain,
        started(AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=name)) as dead,
    ):
        await dead.begin_transaction()
        await dead.send_and_wait(topic, key=b"a", value=b"1", partition=0)
        # One more producer of that name ends the transaction of the first, as after a crash, under an epoch of which
        # the marker is all that the broker knows. So the cleaner keeps the marker's batch, and not the record in it.
        async with started(AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=name)):

            async def compacted() -> bool:
                # Each append begins a segment, and the cleaner takes those before it.
                await plain.send_and_wait(topic, key=b"a", value=b"2", partition=0)
                with contextlib.suppress(FileNotFoundError):
                    return any(is_empty_marker(batch) for batch in log_of(kafka, topic))
                return False

            await until(compacted, "the marker has lost its record", 60)
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await running.wait_active(1)
            end = (await plain.send_and_wait(topic, key=b"b", value=b"3", partition=0)).offset
            await running.wait_position("t", 0, end)
            assert all(running.read("t", key).row is not None for key in (b"a", b"b"))
        assert any(is_empty_marker(batch) for batch in log_of(kafka, topic))


@contextlib.asynccontextmanager
async def started(producer: AIOKafkaProducer) -> AsyncIterator[AIOKafkaProducer]:
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def is_empty_marker(batch: bytes) -> bool:
    attributes, records = batch[ATTRIBUTES_AT + 1], struct.unpack_from(">i", batch, RECORDS_AT - 4)[0]
    return bool(attributes & 0x20) and records == 0


async def test_messages_of_old_formats_that_a_broker_still_has_become_rows(
    rough_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(rough_kafka)
    old = old_batch(0, 0, 0, 2) + old_batch(0, 1, 2, 3) + old_batch(1, 2, 5, 2)
    # Brokers do not write these formats any more, but read them.
    await asyncio.to_thread(rough_kafka.stop)
    log_folder(rough_kafka, topic).joinpath(f"{0:020}.log").write_bytes(old)
    await asyncio.to_thread(rough_kafka.start)
    await produce(rough_kafka.bootstrap_servers, topic, [(b"new", b"{}", 0)])
    async with running_engine(rough_kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await running.wait_position("t", 0, 7)
        row = running.read("t", b"new").row
        assert row is not None
        assert row.offset == 7
        rows = {offset: running.read("t", b"key%d" % offset).row for offset in range(7)}
        timestamps = {offset: row and row.timestamp_ms for offset, row in rows.items()}
        assert timestamps == {0: -1, 1: -1, 2: -1, 3: -1, 4: -1, 5: 5, 6: 6}, rows


# Spoilt batches

#: Kafka's codecs, and 0 for none.
CODECS = ("gzip", "snappy", "lz4", "zstd")


async def test_mutated_batches_of_a_broker_cost_at_most_themselves_and_raise_nothing_unexpected(
    kafka: EmbeddedKafka,
) -> None:
    topic = unique("mutated")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    for codec in CODECS:
        await produce_with_codec(
            kafka.bootstrap_servers, topic, 0, codec, [b"%s %d" % (codec.encode(), n) for n in range(5)]
        )
    await append_batch(kafka.bootstrap_servers, topic, batch_of(*((n, b"k", b"v", [("name", b"x")]) for n in range(4))))
    for commit in (True, False):
        async with started(
            AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=unique("transaction"))
        ) as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(topic, key=b"k", value=b"v", partition=0)
            await (producer.commit_transaction() if commit else producer.abort_transaction())
    batches = log_of(kafka, topic)
    right, failures = read_through(batches, 500)
    assert (len(right), failures) == (4 * 5 + 4 + 2, [])
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    rng = random.Random(seed)
    unreadable = 0
    for _ in range(3000):
        place = rng.randrange(len(batches))
        spoilt = mutated(rng, batches[place])
        records, failures = read_through([*batches[:place], spoilt, *batches[place + 1 :]], rng.choice((1, 3, 500)))
        first, after = first_and_after(batches[place])
        neighbours = contents(record for record in right if not first <= record.offset < after)
        assert [one for one in contents(records) if one in neighbours] == neighbours, spoilt.hex()
        assert all(first <= failure.first <= failure.last < after for failure in failures), (failures, spoilt.hex())
        unreadable += len(failures)
    assert unreadable > 1000


def mutated(rng: random.Random, batch: bytes) -> bytes:
    """Change some bytes that brokers do not find a batch by, now and then with a checksum that fits."""
    spoilt = bytearray(batch)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.choice((rng.randrange(CRC_AT, LAST_OFFSET_AT), rng.randrange(TIMESTAMPS_AT, len(spoilt))))
        spoilt[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return with_crc(spoilt) if rng.random() < 0.8 else bytes(spoilt)


def contents(records: Iterable[Any]) -> list[Any]:
    return [(one.offset, one.timestamp, one.key, one.value, list(one.headers)) for one in records]
