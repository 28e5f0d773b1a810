"""What tables have to hold, by replaying their source topics; it uses nothing of the project.

It has encodings of its own for stored keys and rows, written from the documented layouts.
"""

import hashlib
import json
import math
import struct
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_from_bytes

from aiokafka import AIOKafkaConsumer, TopicPartition

_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class Record:
    """One source record; value is None for a tombstone."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Form:
    """A key format: from the producer's bytes to stored bytes, and to the text of a URL before percent-encoding."""

    stored: Callable[[bytes], bytes]
    text: Callable[[bytes], bytes]


def _same(wire: bytes) -> bytes:
    return wire


def _integer(wire: bytes) -> bytes:
    unsigned = int.from_bytes(wire, "big", signed=True) + (1 << (8 * len(wire) - 1))
    return unsigned.to_bytes(len(wire), "big")


def _decimal(wire: bytes) -> bytes:
    return str(int.from_bytes(wire, "big", signed=True)).encode()


def _scalar(value: object) -> bytes:
    if isinstance(value, bool):
        return b"\x03" if value else b"\x02"
    if isinstance(value, str):
        return b"\x05" + value.encode().replace(b"\x00", b"\x00\xff") + b"\x00"
    if isinstance(value, int | float):
        below = float(value)
        if below > value:
            below = math.nextafter(below, -math.inf)
        (bits,) = struct.unpack(">Q", struct.pack(">d", below))
        ordered = bits + _SIGN if bits < _SIGN else 2 * _SIGN - 1 - bits
        kind = 0 if isinstance(value, int) else 1
        return b"\x04" + struct.pack(">QHB", ordered, int(value - int(below)) if kind == 0 else 0, kind)
    assert value is None
    return b"\x01"


def _json(wire: bytes) -> bytes:
    value = json.loads(wire)
    return b"".join(_scalar(member) for member in value.values()) if isinstance(value, dict) else _scalar(value)


#: By their names in tables.yaml; json is for keys whose members come in the declared order.
FORMS: Mapping[str, Form] = {
    "string": Form(_same, _same),
    "bytes": Form(_same, lambda wire: urlsafe_b64encode(wire).rstrip(b"=")),
    "int": Form(_integer, _decimal),
    "long": Form(_integer, _decimal),
    "uuid": Form(lambda wire: uuid.UUID(wire.decode()).bytes, _same),
    "json": Form(_json, _same),
}


@dataclass(frozen=True, slots=True)
class Expected:
    """A topic as it was when it was replayed: every record of every key, and the end of each partition."""

    history: Mapping[bytes, list[Record]]
    ends: Mapping[int, int]

    def rows(self) -> dict[bytes, Record]:
        """Return the latest record of each key that has a row, by the producer's key bytes."""
        return {key: records[-1] for key, records in self.history.items() if records[-1].value is not None}

    def deleted(self) -> list[Record]:
        """Return the tombstones of the keys that have none."""
        return [records[-1] for records in self.history.values() if records[-1].value is None]


@dataclass(slots=True)
class Content:
    """The rows of one partition, by stored key."""

    rows: dict[bytes, bytes] = field(default_factory=dict)

    def digest(self) -> tuple[int, str]:
        """Count and hash them as a worker does."""
        hashed = hashlib.blake2b(digest_size=16)
        for key in sorted(self.rows):
            row = self.rows[key]
            hashed.update(b"".join((struct.pack(">I", len(key)), key, struct.pack(">I", len(row)), row)))
        return len(self.rows), hashed.hexdigest()


def row_bytes(record: Record, payload: bytes) -> bytes:
    """Return the row that a record makes: layout 1, no flags, timestamp, source offset, payload."""
    return struct.pack(">BBqq", 1, 0, record.timestamp_ms, record.offset) + payload


def contents(expected: Expected, form: Form, payload: Callable[[bytes], bytes] = _same) -> dict[int, Content]:
    """Return what each partition of a table over a topic has to hold; payload is what columns make of a value."""
    found = {partition: Content() for partition in expected.ends}
    for key, record in expected.rows().items():
        assert record.value is not None
        found[record.partition].rows[form.stored(key)] = row_bytes(record, payload(record.value))
    return found


def path_segment(key: bytes, form: Form) -> str:
    """Return a key as a segment of a path, with everything encoded that could be misread."""
    return quote_from_bytes(form.text(key), safe="")


async def replay_source(bootstrap: str, topic: str, partitions: int) -> Expected:
    """Read a topic from its beginning to its present end, partition by partition, in the order of offsets."""
    history: dict[bytes, list[Record]] = {}
    ends: dict[int, int] = {}
    async for partition, end, records in _read(bootstrap, topic, partitions):
        ends[partition] = end
        for record in records:
            if record.key is not None:
                history.setdefault(record.key, []).append(
                    Record(partition, record.offset, record.timestamp, record.key, record.value)
                )
    return Expected(history, ends)


async def replay_changelog(bootstrap: str, topic: str, partitions: int) -> dict[int, Content]:
    """Return what a changelog makes of each partition: rows have keys that begin with 0x01, the last one counts."""
    found: dict[int, Content] = {}
    async for partition, _, records in _read(bootstrap, topic, partitions):
        rows = found.setdefault(partition, Content()).rows
        for record in records:
            if record.key[:1] != b"\x01":
                continue
            if record.value is None:
                rows.pop(record.key[1:], None)
            else:
                rows[record.key[1:]] = record.value
    return found


async def _read(bootstrap: str, topic: str, partitions: int) -> AsyncIterator[tuple[int, int, list[Any]]]:
    """Yield number, end and records of each partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    try:
        for number in range(partitions):
            partition = TopicPartition(topic, number)
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            records: list[Any] = []
            await consumer.seek_to_beginning(partition)
            while await consumer.position(partition) < end:
                found = await consumer.getmany(partition, timeout_ms=500)
                records += [record for record in found.get(partition, ()) if record.offset < end]
            yield number, end, records
    finally:
        await consumer.stop()
