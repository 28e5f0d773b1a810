"""Records of a sample in readable form."""

from collections import defaultdict
from functools import partial
from typing import NamedTuple

from tablehouse.catalog.spec import KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.keys import KeyFormat
from tablehouse.formats.values import value_format
from tablehouse.formats.variants import Known
from tablehouse.inspection.keys import choose_key
from tablehouse.inspection.reading import Reading
from tablehouse.inspection.sample import SampledRecord, TopicSample
from tablehouse.inspection.values import choose_value, source_of


class ShownRecord(NamedTuple):
    """A record with its key as in a URL and its row as text, None for a tombstone; or why it cannot be a row."""

    record: SampledRecord
    key: str | None
    row: str | None
    problem: str | None


async def shown(sample: TopicSample, reading: Reading, per_partition: int) -> tuple[list[ShownRecord], str]:
    """Return the newest records of each partition, and a description of their assumed formats."""
    key, value = await choose_key(sample, reading), await choose_value(sample, reading)
    key_spec, value_spec = key.spec or KeySpec("bytes"), value.spec or ValueSpec("bytes")
    keys = source_keys(SourceSpec(sample.topic, key_spec, value_spec), Known(reading.schemas))
    table = TableSpec("peek", source_of(sample.topic, value_spec, value.envelope))
    newest: dict[int, list[SampledRecord]] = defaultdict(list)
    for record in sample.records:
        newest[record.place.partition].append(record)
    records = [record for of_partition in newest.values() for record in of_partition[-per_partition:]]
    return [await _shown(record, keys, table, reading) for record in records], f"key: {key.why}; value: {value.why}"


async def _shown(record: SampledRecord, keys: KeyFormat, table: TableSpec, reading: Reading) -> ShownRecord:
    if record.key is None:
        return ShownRecord(record, None, None, "it has no key, and a row needs one")
    key = row = None
    try:
        text = await reading.read(lambda wire: keys.record_text(wire, record.headers), record.key)
        key = text.decode()
        if record.value is not None:
            decode = partial(value_format(table, reading.schemas).decode, headers=record.headers)
            row = await reading.read(decode, record.value)
    except DecodeError as error:
        return ShownRecord(record, key, None, str(error))
    return ShownRecord(record, key, None if row is None else row.decode("utf-8", "backslashreplace"), None)
