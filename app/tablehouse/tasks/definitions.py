"""What a table's tasks need from its definition: names, fingerprint and codec."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

from tablehouse.catalog.fingerprint import fingerprint
from tablehouse.catalog.spec import TableSpec
from tablehouse.folds.make import make_fold
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.likely_causes import cause_of_key, cause_of_value
from tablehouse.formats.partitioners import partitions_of, places_empty_keys
from tablehouse.formats.row_form import row_form
from tablehouse.formats.schemas import SchemaKind, SchemaNeeded
from tablehouse.formats.values import LARGE_VALUE_BYTES, value_format
from tablehouse.formats.variants import Known
from tablehouse.model import TopicPartition
from tablehouse.stores.rows import LAYOUT_VERSION
from tablehouse.tasks.identity import Identity
from tablehouse.tasks.ingest import TableCodec
from tablehouse.tasks.log import LogRecord
from tablehouse.tasks.suspicions import KeySuspicion


def changelog_topic(group: str, table: TableSpec) -> str:
    """Return the name of a table's changelog topic; each version of a table has one of its own.

    Tables of one catalog never share a topic. Those of two groups can; their fingerprints tell them apart.
    """
    return f"{group}-{table.log_name}-changelog"


def tables_with_changelogs(group: str, topics: Iterable[str]) -> set[str]:
    """Return the tables of a group that have a changelog, of any version, among `topics`."""
    pattern = re.compile(rf"{re.escape(group)}-(.+?)(-v[0-9]+)?-changelog")
    return {match[1] for topic in topics if (match := pattern.fullmatch(topic))}


def family_name(table: TableSpec) -> str:
    """Return the name of the column family that holds a table's rows in every shard."""
    return table.name if table.version == 1 else f"{table.name}.v{table.version}"


def identity_of(group: str, table: TableSpec, partition: int, partitions: int) -> Identity:
    """Return a task's identity; `partitions` is the source topic's partition count."""
    return Identity(
        table=table.name,
        changelog=TopicPartition(changelog_topic(group, table), partition),
        fingerprint=fingerprint(table, group=group, partitions=partitions, row_layout=LAYOUT_VERSION),
        inputs={source: table.input_name(source) for source in table.inputs(partition)},
    )


def codec_of(table: TableSpec, partition: int, partitions: int, known: Known) -> TableCodec:
    """Return the codec for one partition of the table's source."""
    keys, partitioner = source_keys(table.source, known), table.source.partitioner

    anywhere = partitioner == "any"

    def misplaced(wires: Sequence[bytes]) -> int | None:
        if anywhere:
            return None
        found = partitions_of(partitioner, wires, partitions)
        if found.count(partition) != len(found):
            return next(index for index, where in enumerate(found) if where != partition)
        if keys.canonical_wire or not keys.enumerable:
            return None
        found = partitions_of(partitioner, [keys.canonical(wire) for wire in wires], partitions)
        return next((index for index, where in enumerate(found) if where != partition), None)

    def kind_of(schema: int) -> SchemaKind | None:
        with suppress(DecodeError, SchemaNeeded):
            return known.schemas.known(schema).kind
        return None

    def likely_cause(record: LogRecord, reason: str) -> str | None:
        if reason == "undecodable_key":
            return cause_of_key(table.source.key.format, record.key or b"", record.headers, kind_of)
        value = record.value or b""
        # Checking a large value would take too long.
        if reason == "undecodable_value" and len(value) <= LARGE_VALUE_BYTES:
            return cause_of_value(table.source.value.format, value, record.headers, kind_of)
        return None

    (source,) = table.inputs(partition)
    values = value_format(table, known.schemas)
    return TableCodec(
        source=source,
        store_key=keys.store,
        decode_value=values.decode,
        decode_in_pieces=values.decode_in_pieces,
        misplaced=misplaced,
        fold=make_fold(table.fold),
        spec=table.source,
        partitions=partitions,
        empty_keys=places_empty_keys(partitioner),
        on_error=table.source.on_error,
        likely_cause=likely_cause,
        suspicion=KeySuspicion(table.source.key),
        form=row_form(keys, table.source.key, values.content_type),
    )
