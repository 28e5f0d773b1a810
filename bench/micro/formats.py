"""Partitioners, key formats, the decoding of values, and the fold of a whole lane batch."""

from dataclasses import replace

from aiokafka.structs import ConsumerRecord

from bench.micro.timing import Timings
from bench.source import Source
from tablehouse.catalog.spec import FoldSpec, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.folds.make import make_fold
from tablehouse.formats.keys import key_format
from tablehouse.formats.partitioners import partitions_of
from tablehouse.formats.schemas import NoSchemas
from tablehouse.formats.values import value_format
from tablehouse.model import TopicPartition
from tablehouse.tasks.ingest import Folding, TableCodec
from tablehouse.tasks.log import LogRecord
from tablehouse.tasks.pipeline import LANE_BATCH
from tablehouse.tasks.records import anchor_of

#: The text of a key in a URL, by format.
_KEYS = {
    KeySpec("string"): b"customer-0012345",
    KeySpec("bytes"): b"Y3VzdG9tZXItMDAxMjM0NQ==",
    KeySpec("int"): b"12345",
    KeySpec("long"): b"12345678901",
    KeySpec("uuid"): b"123e4567-e89b-12d3-a456-426614174000",
    KeySpec("json", ("id", "region")): b'{"id":12345,"region":"eu"}',
}
_TABLE = TableSpec("table", SourceSpec("source", KeySpec("string"), ValueSpec("json")))


def measure(timings: Timings) -> None:
    """Time them on the records of the benchmark."""
    contents = list(Source(LANE_BATCH, LANE_BATCH, 4).contents())
    wires = [key for key, _ in contents]
    timings.sync("murmur2, a key", len(wires), lambda: partitions_of("murmur2", wires, 4))
    timings.sync("crc32, a key", len(wires), lambda: partitions_of("crc32", wires, 4))
    for spec, text in _KEYS.items():
        _measure_key(timings, spec, text)
    decode = value_format(_TABLE, NoSchemas()).decode
    timings.sync("value json, 150 B", len(contents), lambda: [decode(value) for _, value in contents])
    records = _records(contents)
    codec = _codec()
    timings.sync(
        "a record, decoded, checked and folded",
        len(records),
        lambda: _fold(codec, records),
    )
    counting = replace(codec, fold=make_fold(FoldSpec("count")))
    timings.sync("a record, decoded, checked and counted", len(records), lambda: _fold(counting, records))
    timings.sync("the anchor of a batch", 1000, lambda: [anchor_of(records[-1]) for _ in range(1000)])


def _measure_key(timings: Timings, spec: KeySpec, text: bytes) -> None:
    keys = key_format(spec)
    wire = keys.parse(text).wires[0]
    times = range(1000)
    timings.sync(f"key {spec}, from a URL", len(times), lambda: [keys.parse(text) for _ in times])
    timings.sync(f"key {spec}, from a record", len(times), lambda: [keys.store(wire) for _ in times])


def _records(contents: list[tuple[bytes, bytes]]) -> list[LogRecord]:
    return [
        ConsumerRecord("source", 0, offset, 1_700_000_000_000, 0, key, value, None, len(key), len(value), ())
        for offset, (key, value) in enumerate(contents)
    ]


def _codec() -> TableCodec:
    def misplaced(wires: object) -> int | None:
        partitions_of("murmur2", wires, 1)  # type: ignore[arg-type]  # keys, as TableCodec says
        return None

    return TableCodec(
        source=TopicPartition("source", 0),
        store_key=key_format(_TABLE.source.key).store,
        decode_value=value_format(_TABLE, NoSchemas()).decode,
        misplaced=misplaced,
        fold=make_fold(_TABLE.fold),
        spec=_TABLE.source,
        partitions=1,
    )


def _no_skip(record: LogRecord, reason: str, detail: str) -> None:
    raise AssertionError(f"record {record.offset} is skipped: {reason}, {detail}")


def _fold(codec: TableCodec, records: list[LogRecord]) -> None:
    Folding(codec, _no_skip, lambda _: None).add(records)
