# ruff: noqa: SLF001 - files of the broker are read
"""Record batches as brokers keep them, and what a fetch of such bytes gives a consumer for raw records."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from tablehouse.kafka.raw_records import raw
from tablehouse.kafka.record_batches import UnreadableBatch
from tablehouse.testing.kafka import EmbeddedKafka

PARTITION = KafkaPartition("topic", 0)

#: Where the parts of a batch of the current message format are.
CRC_AT, ATTRIBUTES_AT, LAST_OFFSET_AT, TIMESTAMPS_AT, RECORDS_AT = 17, 21, 23, 27, 61

Headers = Sequence[tuple[str, bytes | None]]


def batch_of(
    *records: tuple[int, bytes | None, bytes | None, Headers],
    base: int = 0,
    codec: int = 0,
    producer: int = -1,
    transactional: bool = False,
) -> bytes:
    """Return a batch of records, each with its offset in the batch; timestamps are 1000 and that offset."""
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer, 0, 0, 1 << 20)
    for offset, key, value, headers in records:
        builder.append(offset, timestamp=1000 + offset, key=key, value=value, headers=list(headers))
    return struct.pack(">q", base) + bytes(builder.build()[8:])


def old_batch(magic: int, codec: int, base: int, count: int) -> bytes:
    """Return messages of an old format as a broker keeps them: each by itself, or all in a compressed one."""
    data = b""
    for number in range(count):
        builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
        builder.append(0, 5 + number, b"key%d" % (base + number), b'"old"')
        message = bytes(builder.build())
        data += struct.pack(">q", base + number) + message[8:]
    if codec == 0:
        return data
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for number in range(count):
        # Offsets within a compressed message are absolute at first, and later relative.
        offset = base + number if magic == 0 else number
        builder.append(offset, 5 + number, b"key%d" % (base + number), b'"old"')
    return struct.pack(">q", base + count - 1) + bytes(builder.build())[8:]


def with_crc(batch: bytes | bytearray) -> bytes:
    """Return a batch with the checksum that fits its content."""
    return (
        bytes(batch[:CRC_AT])
        + struct.pack(">I", calc_crc32c(bytes(batch[ATTRIBUTES_AT:])))
        + bytes(batch[ATTRIBUTES_AT:])
    )


def renamed(batch: bytes, name: bytes, other: bytes) -> bytes:
    """Return a batch, not compressed, with bytes of a header's name replaced."""
    assert len(name) == len(other)
    assert batch.count(name) == 1
    return with_crc(batch.replace(name, other))


def as_marker(batch: bytes, records: int) -> bytes:
    """Return a batch as a control batch of its first record, or, as compaction leaves it, of none."""
    marked = bytearray(batch)
    marked[ATTRIBUTES_AT + 1] |= 0x20
    if not records:
        del marked[RECORDS_AT:]
        marked[57:61] = struct.pack(">i", 0)
        marked[8:12] = struct.pack(">i", len(marked) - 12)
    return with_crc(marked)


def fetched(data: bytes, offset: int = 0, aborted: Sequence[tuple[int, int]] = ()) -> Any:
    """Return what a fetch from an offset brings, with (producer id, first offset) of aborted transactions."""
    return fetcher.PartitionRecords(
        PARTITION,
        fetcher.MemoryRecords(data),
        list(aborted),
        offset,
        key_deserializer=raw,
        value_deserializer=None,
        check_crcs=True,
        isolation_level=READ_COMMITTED,
    )


def batches_in(log: bytes) -> Iterator[bytes]:
    """Yield the batches in a segment of a broker's log."""
    at = 0
    while at + RECORDS_AT <= len(log):
        size = 12 + struct.unpack_from(">i", log, at + 8)[0]
        if size <= 12:  # the rest of a segment that was allocated ahead
            return
        yield log[at : at + size]
        at += size


def first_and_after(batch: bytes) -> tuple[int, int]:
    """Return the first offset of a batch and the one after it; of an old format, the last offset and that one."""
    (first,) = struct.unpack_from(">q", batch)
    old = batch[16] < 2
    return first, first + 1 + (0 if old else struct.unpack_from(">i", batch, LAST_OFFSET_AT)[0])


def read_through(batches: Sequence[bytes], most: int) -> tuple[list[Any], list[UnreadableBatch]]:
    """Read batches as a consumer does that passes over what cannot be read, from a broker that finds them by `ends`.

    Returns the records, `most` of them at a time at most, and what could not be read.
    """
    ends = [first_and_after(batch)[1] for batch in batches]
    records: list[Any] = []
    failures: list[UnreadableBatch] = []
    position = 0
    while True:
        rest = b"".join(batch for batch, end in zip(batches, ends, strict=True) if end > position)
        if not rest:
            return records, failures
        result, before = fetched(rest, position), position
        try:
            while taken := result.take(most):
                records += taken
                position = result.next_fetch_offset
            position = max(position, result.next_fetch_offset)
        except UnreadableBatch as error:
            failures.append(error)
            position = max(position, error.last + 1)
        assert position > before, "a reader stands still"


async def append_batch(bootstrap: str, topic: str, batch: bytes, partition: int = 0) -> None:
    """Have the broker append a batch as it is."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        await client.fetch_all_metadata()
        client.add_topic(topic)
        await client.force_metadata_update()
        leader = client.cluster.leader_for_partition(KafkaPartition(topic, partition))
        answer = await client.send(leader, ProduceRequest(None, -1, 30_000, [(topic, [(partition, batch)])]))
        assert answer.topics[0][1][0][1] == 0, answer
    finally:
        await client.close()


def log_folder(kafka: EmbeddedKafka, topic: str) -> Path:
    """Return where the broker has the log of a topic's partition 0."""
    (folder,) = kafka._data_dir.glob(f"*/data/{topic}-0")
    return folder


def log_of(kafka: EmbeddedKafka, topic: str) -> list[bytes]:
    """Return the batches in the log of a topic's partition 0, from the broker's disk.

    Raises FileNotFoundError when the broker replaces a segment meanwhile.
    """
    folder = log_folder(kafka, topic)
    return [batch for segment in sorted(folder.glob("*.log")) for batch in batches_in(segment.read_bytes())]


def spoil_head(kafka: EmbeddedKafka, topic: str, number: int, at: int, data: bytes) -> None:
    """Damage the head of a batch on the broker's disk."""
    batches = log_of(kafka, topic)
    with log_folder(kafka, topic).joinpath(f"{0:020}.log").open("r+b") as opened:
        opened.seek(sum(len(batch) for batch in batches[:number]) + at)
        opened.write(data)
