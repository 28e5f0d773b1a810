"""What is chosen for samples of records, and what is said where nothing can be."""

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tablehouse.catalog.load import load_catalog
from tablehouse.catalog.spec import KeySpec, PartitionerName, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import CatalogError
from tablehouse.formats.partitioners import partition_of
from tablehouse.formats.schemas import NoSchemas, Schema, SchemaName
from tablehouse.inspection.agreement import disagreements, notes_of_columns
from tablehouse.inspection.definition import tables_yaml
from tablehouse.inspection.keys import choose_key
from tablehouse.inspection.partitioners import choose_partitioner
from tablehouse.inspection.proposal import propose
from tablehouse.inspection.reading import Reading
from tablehouse.inspection.sample import SampledRecord, TopicSample
from tablehouse.inspection.shown import shown
from tablehouse.inspection.values import choose_value
from tablehouse.model import TopicPartition

LONG_SCHEMA, RECORD_SCHEMA, JSON_SCHEMA = 7, 8, 9

Pair = tuple[bytes | None, bytes | None]


class SomeSchemas(NoSchemas):
    """Some schemas, known from the start."""

    def known(self, schema_id: SchemaName) -> Schema:
        """See Schemas."""
        if schema_id == JSON_SCHEMA:
            return Schema(schema_id, "JSON", "{}")
        texts: dict[SchemaName, str] = {
            LONG_SCHEMA: '"long"',
            RECORD_SCHEMA: '{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}',
        }
        return Schema(schema_id, "AVRO", texts[schema_id]) if schema_id in texts else super().known(schema_id)

    def latest(self, subject: str, writer: SchemaName) -> Schema:
        """See Schemas."""
        del subject
        return self.known(writer)


READING = Reading(NoSchemas())


def sample(
    pairs: Iterable[Pair],
    partitions: int = 3,
    partitioner: PartitionerName = "murmur2",
    headers: Sequence[tuple[str, bytes]] = (),
    cleanup: str = "compact",
) -> TopicSample:
    """Return records as a producer with a partitioner lays them."""
    ends = dict.fromkeys(range(partitions), 0)
    records = []
    for key, value in pairs:
        partition = 0 if key is None else partition_of(partitioner, key, partitions)
        records.append(
            SampledRecord(TopicPartition("orders", partition), ends[partition], 1000, key, value, tuple(headers))
        )
        ends[partition] += 1
    bounds = {partition: (0, end) for partition, end in ends.items()}
    return TopicSample("orders", partitions, cleanup, bounds, sorted(records, key=lambda one: one[:2]))


def framed(schema: int, content: bytes) -> bytes:
    """Return content behind the id of a schema."""
    return b"\0" + schema.to_bytes(4, "big") + content


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([b"a", "ü".encode()], KeySpec("string")),
        ([b"1", b"2"], KeySpec("string")),
        ([b"ABCD", b"WXYZ"], KeySpec("string")),
        ([b"", b"x"], KeySpec("string")),
        ([struct.pack(">i", number) for number in (-1, 0, 7)], KeySpec("int")),
        ([struct.pack(">q", number) for number in (-1, 0, 7, 1 << 40)], KeySpec("long")),
        ([b"123e4567-e89b-12d3-a456-42661417400%d" % number for number in range(5)], KeySpec("uuid")),
        ([b"123e4567-e89b-12d3-a456-426614174000", b"none"], KeySpec("string")),
        ([b'"a"', b'"b"'], KeySpec("json")),
        ([b'{"id":1}', b'{"id": 2}'], KeySpec("json", ("id",), bare=True, spellings=("compact", "python"))),
        ([b'{"a":1,"b":"x"}', b'{"a":2,"b":"y"}'], KeySpec("json", ("a", "b"))),
        ([b'{"a":1,"b":"x"}', b'{"a":2}'], KeySpec("string")),
        ([b'{"a":[1]}'], KeySpec("string")),
        ([b'{"schema":{"type":"int64"},"payload":1}'], KeySpec("json_connect")),
        ([b"\xff\x01\x80", b"abc"], KeySpec("bytes")),
        ([b"a\x00b\x01c"], KeySpec("bytes")),
    ],
)
async def test_the_format_of_keys_is_one_that_gives_every_row(keys: list[bytes], expected: KeySpec) -> None:
    choice = await choose_key(sample([(key, b"1") for key in keys]), READING)
    assert (choice.spec, choice.fit.fitting, choice.rivals) == (expected, len(keys), ())


@pytest.mark.parametrize(
    ("schema", "contents", "expected"),
    [
        (LONG_SCHEMA, [b"\x02", b"\x80\x80\x01"], KeySpec("avro")),
        (RECORD_SCHEMA, [b"\x02", b"\x04"], KeySpec("avro", ("id",), bare=True)),
    ],
)
async def test_keys_of_registered_schemas_are_avro(schema: int, contents: list[bytes], expected: KeySpec) -> None:
    keys = sample([(framed(schema, content), b"1") for content in contents])
    assert (await choose_key(keys, Reading(SomeSchemas()))).spec == expected
    unknown = await choose_key(keys, READING)
    assert unknown.spec == KeySpec("bytes")
    assert "set schema_registry" in unknown.why


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"type":"record"}', '{"type":"record","fields":[{"name":["x"]}]}', '{"type":"record","fields":[5]}',
     "[" * 600, '{"type":"record","name":"K","fields":[{"name":"id","type":7}]}'],
)  # fmt: skip
async def test_a_schema_that_is_none_ends_no_command(text: str) -> None:
    class Broken(SomeSchemas):
        def known(self, schema_id: SchemaName) -> Schema:
            return Schema(schema_id, "AVRO", text)

    topic, reading = sample([(framed(RECORD_SCHEMA, b"\x02"), b"1")]), Reading(Broken())
    assert (await choose_key(topic, reading)).spec == KeySpec("bytes")
    assert await shown(topic, reading, 1)


async def test_keys_that_are_integers_as_well_as_avro_are_not_decided() -> None:
    keys = sample([(framed(LONG_SCHEMA, content), b"1") for content in (b"\x80\x80\x01", b"\x80\x82\x01")])
    choice = await choose_key(keys, Reading(SomeSchemas()))
    assert (choice.spec, choice.rivals) == (KeySpec("avro"), (KeySpec("long"),))
    proposal = await propose(keys, Reading(SomeSchemas()))
    assert any("avro and long fit all keys" in problem for problem in proposal.problems)
    assert "key: UNDECIDED" in tables_yaml([proposal])


@pytest.mark.parametrize(
    ("values", "expected", "envelope"),
    [
        ([b"{}", b"[1]", b"null", None], "json", "none"),
        ([b"text", b"more\ntext"], "string", "none"),
        ([b"\xff"], "bytes", "none"),
        ([b"a\x00b"], "bytes", "none"),
        ([b'{"before":null,"after":{"id":1},"op":"c","source":{},"ts_ms":1}'], "json", "debezium"),
        (
            [b'{"schema":null,"payload":{"before":{"id":1},"after":null,"op":"d","source":{},"ts_ms":1}}'],
            "json_connect",
            "debezium",
        ),
        ([b'{"schema":{"type":"int64"},"payload":1}', None], "json_connect", "none"),
        ([b'{"schema":"public","payload":1}'], "json", "none"),
        ([b'{"op":"c","id":1}'], "json", "none"),
    ],
)
async def test_the_format_of_values_is_one_that_gives_every_row(
    values: list[bytes | None], expected: str, envelope: str
) -> None:
    choice = await choose_value(sample([(b"k%d" % n, value) for n, value in enumerate(values)]), READING)
    assert choice.spec is not None
    assert (choice.spec.format, choice.envelope, choice.fit.is_whole) == (expected, envelope, True)


@pytest.mark.parametrize(
    ("value", "headers", "remedy"),
    [
        (b"\x03\x00" + bytes(range(16)) + b"{}", (), "AWS Glue"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x00\x07data", (), "Legacy4ByteIdHandler"),
        (b"\x06abc", (("apicurio.value.globalId", b"\0" * 8),), "apicurio.registry.headers.enabled=false"),
        (b"\xc3\x01" + bytes(8) + b"\x02", (), "single_object"),
        (b"Obj\x01...", (), "Avro file"),
        (framed(3, b"\x02"), (), "set schema_registry"),
    ],
)
async def test_a_framing_that_no_format_reads_is_named_with_its_remedy(
    value: bytes, headers: Sequence[tuple[str, bytes]], remedy: str
) -> None:
    choice = await choose_value(sample([(b"k", value), (b"l", value)], headers=headers), READING)
    assert choice.spec is None
    assert remedy in choice.why


async def test_values_that_are_json_for_the_most_part_are_said_to_be() -> None:
    values = [b'{"a":1}', b'{"a":2}', b"{'a': 3}"]
    choice = await choose_value(sample([(b"k%d" % number, value) for number, value in enumerate(values)]), READING)
    assert choice.spec == ValueSpec("string")
    assert "2 of 3 would be rows as json, and the others dead letters" in choice.why


async def test_a_few_values_of_another_kind_are_problems_with_their_causes() -> None:
    values = sample([(b"k%d" % number, b"{}" if number else b"") for number in range(20)])
    proposal = await propose(values, READING)
    assert proposal.value.spec == ValueSpec("json")
    [problem] = proposal.problems
    assert "19 of 20 values are JSON" in problem
    assert "a delete is a record whose value is null" in problem


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
def test_the_partitioner_is_the_one_that_puts_the_keys_where_they_are(partitioner: PartitionerName) -> None:
    choice = choose_partitioner(sample([(b"k%d" % n, b"1") for n in range(50)], 6, partitioner))
    assert (choice.name, choice.fitting[partitioner]) == (partitioner, 50)
    assert "chance" not in choice.why


def test_partitioners_that_fit_alike_are_a_tie_and_few_keys_a_doubt() -> None:
    both = next(
        key
        for key in (b"%d" % n for n in range(99))
        if partition_of("murmur2", key, 3) == partition_of("crc32", key, 3)
    )
    tie = choose_partitioner(sample([(both, b"1")]))
    assert tie.name is None
    assert {"murmur2", "crc32"} <= set(tie.rivals)
    few = choose_partitioner(sample([(b"k", b"1")], 2))
    assert few.name is None or "chance" in few.why


def test_a_topic_that_was_filled_in_turns_is_read_in_all_partitions() -> None:
    records = [
        SampledRecord(TopicPartition("orders", number % 3), number, 0, b"k%d" % number, b"1", ())
        for number in range(30)
    ]
    choice = choose_partitioner(TopicSample("orders", 3, "compact", {}, records))
    assert (choice.name, choice.rivals) == ("any", ())
    assert "no partitioner known here" in choice.why


def test_keys_that_are_in_two_partitions_are_where_no_partitioner_puts_them() -> None:
    laid = sample([(b"k%d" % n, b"1") for n in range(50)], 4)
    again = [one._replace(place=TopicPartition("orders", 3), offset=99 + n) for n, one in enumerate(laid.records)]
    choice = choose_partitioner(TopicSample("orders", 4, "compact", {}, [*laid.records, *again]))
    assert (choice.name, choice.keys) == ("any", 50)


async def test_a_proposal_is_a_file_that_workers_take(tmp_path: Path) -> None:
    first = await propose(sample([(b'{"a b":%d}' % n, b"{}") for n in range(40)], partitioner="crc32"), READING)
    plain = sample([(b"k%d" % n, b"{}") for n in range(40)], partitioner="crc32", cleanup="delete")
    second = await propose(plain, READING, [first.name])
    empty = await propose(sample([]), READING, [first.name, second.name])
    file = tmp_path / "tables.yaml"
    file.write_text(tables_yaml([first, second, empty]), "utf-8")
    catalog = load_catalog(file)
    assert [table.name for table in catalog.tables.values()] == ["orders", "orders_2"]
    assert catalog.tables["orders"].source == SourceSpec(
        "orders", KeySpec("json", ("a b",), bare=True), ValueSpec("json"), "crc32"
    )
    assert "cleanup.policy is delete" in file.read_text("utf-8")


async def test_a_proposal_with_something_open_is_refused_by_workers(tmp_path: Path) -> None:
    keys = [b"%d" % number for number in range(99)]
    both = next(key for key in keys if partition_of("murmur2", key, 3) == partition_of("crc32", key, 3))
    file = tmp_path / "tables.yaml"
    file.write_text(tables_yaml([await propose(sample([(both, b"{}")]), READING)]), "utf-8")
    with pytest.raises(CatalogError, match=r"partitioner: cannot be 'UNDECIDED'"):
        load_catalog(file)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([b'{"id":%d}' % n for n in range(20)], None),
        ([b'{"id": %d}' % n for n in range(20)], "spellings: [python"),
    ],
)
async def test_the_spelling_of_json_keys_is_that_of_the_producer(keys: list[bytes], expected: str | None) -> None:
    written = tables_yaml([await propose(sample([(key, b"{}") for key in keys]), READING)])
    assert ("spellings" in written) == (expected is not None)
    assert expected is None or expected in written


async def test_the_spelling_of_json_keys_behind_the_id_of_a_schema_is_that_of_the_producer() -> None:
    keys = sample([(framed(JSON_SCHEMA, b'{"id": %d}' % number), b"1") for number in range(60)])
    reading = Reading(SomeSchemas())
    choice = await choose_key(keys, reading)
    assert choice.spec == KeySpec("json_sr", ("id",), bare=True, spellings=("python",))
    given = replace(choice.spec, spellings=("compact", "jackson"))
    table = TableSpec("orders", SourceSpec("orders", given, ValueSpec("json")))
    [problem] = [problem async for problem in disagreements(table, keys, reading)]
    assert "spellings: [python] would fit 60 of 60" in problem


async def test_what_is_quoted_of_a_topic_stays_in_its_line(tmp_path: Path) -> None:
    keys = [json.dumps({"x\n  - name: evil": n}).encode() for n in range(3)]
    file = tmp_path / "tables.yaml"
    file.write_text(tables_yaml([await propose(sample([(key, b"{}") for key in keys], 1), READING)]), "utf-8")
    assert load_catalog(file).tables["orders"].source.key == KeySpec("string")


async def found(source: SourceSpec, records: TopicSample) -> list[str]:
    """Return what is not as a source says."""
    return [line async for line in disagreements(TableSpec("orders", source), records, READING)]


async def test_a_definition_that_fits_has_no_disagreements() -> None:
    assert (
        await found(
            SourceSpec("orders", KeySpec("string"), ValueSpec("json")), sample([(b"k%d" % n, b"{}") for n in range(9)])
        )
        == []
    )


async def test_a_wrong_definition_is_told_field_by_field_with_what_would_fit() -> None:
    records = sample([(b"k%03d" % n, b"text") for n in range(50)], partitioner="crc32")
    key, value, partitioner = await found(SourceSpec("orders", KeySpec("int"), ValueSpec("json")), records)
    assert key.startswith("source.key: all 50 keys can be read as int but look like string")
    assert value.startswith("source.value: 0 of 50 values can be rows")
    assert "string would fit 50 of 50" in value
    assert partitioner.startswith("source.partitioner: murmur2 puts")
    assert "crc32" in partitioner


async def test_json_keys_in_no_spelling_of_the_table_are_told_with_the_one_that_fits() -> None:
    records = sample([(b'{"id": %d}' % n, b"1") for n in range(20)])
    usual = KeySpec("json", ("id",), bare=True)
    [problem] = await found(SourceSpec("orders", usual, ValueSpec("json")), records)
    assert problem.startswith("source.key: 20 of 20 keys are in none of spellings: [compact, jackson] (offset 0 of ")
    assert problem.endswith("; spellings: [python] would fit 20 of 20")
    right = KeySpec("json", ("id",), bare=True, spellings=("python",))
    assert await found(SourceSpec("orders", right, ValueSpec("json")), records) == []
    # Every partition is asked.
    assert await found(SourceSpec("orders", usual, ValueSpec("json"), partitioner="any"), records) == []


async def test_columns_that_no_row_has_are_noted() -> None:
    records = sample([(b"a", b'{"name":"x","city":"Oslo"}'), (b"b", b'{"name":"y"}'), (b"c", None)])
    columns = {"n": "nam", "city": "city", "op": "$op"}
    table = TableSpec("t", SourceSpec("orders", KeySpec("string"), ValueSpec("json")), columns=columns)
    notes = [note async for note in notes_of_columns(table, records, READING)]
    assert notes == ["columns: none of 2 rows has a member nam; they have city, name"]


async def test_values_behind_an_id_that_nobody_knows_are_told_to_be_a_serializers() -> None:
    records = sample([(b"k%d" % n, framed(7, b"\xff")) for n in range(20)])
    [problem] = await found(SourceSpec("orders", KeySpec("string"), ValueSpec("json")), records)
    assert problem.endswith("use avro, protobuf or json_sr, and set schema_registry to that registry")


async def test_bytes_are_no_remedy_where_schemas_are_missing() -> None:
    keys = sample([(framed(7, b"\x06abc"), b"1")])
    [problem] = await found(SourceSpec("orders", KeySpec("avro"), ValueSpec("json")), keys)
    assert "no schema registry is configured" in problem
    assert "would fit" not in problem
