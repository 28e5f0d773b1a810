"""The names and the codec that follow from a table's definition; other names would orphan changelogs and stores."""

from dataclasses import replace

import pytest

from tablehouse.catalog.fingerprint import fingerprint
from tablehouse.catalog.spec import Catalog, FoldSpec, KeySpec, PartitionerName, SourceSpec, TableSpec, ValueSpec
from tablehouse.folds.fold import Decoded, Slice
from tablehouse.folds.upsert import Upsert
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.partitioners import partition_of
from tablehouse.formats.schemas import SchemaNeeded
from tablehouse.formats.values import LARGE_VALUE_BYTES
from tablehouse.formats.variants import Known
from tablehouse.kafka.record_batches import ReadRecord
from tablehouse.model import ShardId, TopicPartition
from tablehouse.stores.rows import Row, unpack
from tablehouse.tasks.definitions import changelog_topic, codec_of, family_name, identity_of, tables_with_changelogs
from tests.support.avro import avro_schema
from tests.support.schemas import NO_REGISTRY, FetchedSchemas, framed
from tests.support.several import union

TABLE = TableSpec("planes", SourceSpec("planes-raw", KeySpec("string"), ValueSpec("json")))
UUID = "123e4567-e89b-12d3-a456-42661417400a"


@pytest.mark.parametrize(
    ("version", "topic", "family"),
    [
        (1, "g-planes-changelog", "planes"),
        (2, "g-planes-v2-changelog", "planes.v2"),
        (12, "g-planes-v12-changelog", "planes.v12"),
    ],
)
def test_each_version_of_a_table_has_a_changelog_and_a_family_of_its_own(version: int, topic: str, family: str) -> None:
    table = replace(TABLE, version=version)
    assert (changelog_topic("g", table), family_name(table)) == (topic, family)
    assert tables_with_changelogs("g", [topic, "h-ships-changelog", "g-skips", "g-changelog"]) == {"planes"}


def test_a_plain_table_is_sharded_with_the_tables_of_its_source_topic_and_reads_one_partition_of_it() -> None:
    other = TableSpec("routes", SourceSpec("routes-raw", KeySpec("string"), ValueSpec("json")), standbys=2)
    catalog = Catalog({table.name: table for table in (TABLE, other, replace(TABLE, name="fleet", standbys=0))})
    assert TABLE.shard(3) == ShardId("planes-raw", 3)
    assert str(TABLE.shard(3)) == "planes-raw[3]"
    assert TABLE.inputs(3) == (TopicPartition("planes-raw", 3),)
    assert catalog.shard_names == ("planes-raw", "routes-raw")
    assert [table.name for table in catalog.tables_in("planes-raw")] == ["planes", "fleet"]
    assert catalog.standbys == {"planes-raw": 1, "routes-raw": 2}


def test_an_input_is_named_by_its_partition_and_in_a_table_of_several_topics_by_its_topic_too() -> None:
    orders, refunds = TopicPartition("orders", 3), TopicPartition("refunds", 3)
    assert identity_of("g", TABLE, 3, 12).inputs == {TopicPartition("planes-raw", 3): "3"}
    sales = union("sales", "orders", "refunds")
    assert sales.inputs(3) == (orders, refunds)
    assert list(identity_of("g", sales, 3, 12).inputs.items()) == [(orders, "orders/3"), (refunds, "refunds/3")]
    catalog = Catalog({"sales": sales, "planes": TABLE})
    assert catalog.topics == ("orders", "refunds", "planes-raw")
    assert [table.name for table in catalog.tables_of("refunds")] == ["sales"]


def test_groups_and_tables_have_changelogs_of_their_own() -> None:
    other = replace(TABLE, name="airlines")
    assert len({changelog_topic(group, table) for group in ("g", "h") for table in (TABLE, other)}) == 4


def test_where_two_groups_have_a_changelog_of_one_name_the_fingerprints_tell_whose_it_is() -> None:
    one = identity_of("shop", replace(TABLE, name="eu-users"), 3, 12)
    other = identity_of("shop-eu", replace(TABLE, name="users"), 3, 12)
    assert one.changelog == other.changelog
    assert one.fingerprint != other.fingerprint


def test_a_task_is_its_table_its_changelog_partition_and_all_parts_of_the_fingerprint() -> None:
    identity = identity_of("g", TABLE, 3, 12)
    assert (identity.table, identity.changelog) == ("planes", TopicPartition("g-planes-changelog", 3))
    assert identity.fingerprint == fingerprint(TABLE, group="g", partitions=12, row_layout=1)
    assert identity.fingerprint == {
        "group": "g",
        "table": "planes",
        "version": "1",
        "source": "planes-raw",
        "key": "string",
        "key_fields": "[]",
        "value": "json",
        "partitioner": "murmur2",
        "envelope": "none",
        "columns": "null",
        "fold": "upsert",
        "partitions": "12",
        "row_layout": "1",
    }


def test_a_codec_reads_keys_and_values_in_the_tables_formats() -> None:
    codec = codec_of(replace(TABLE, source=replace(TABLE.source, key=KeySpec("int"))), 1, 4, NO_REGISTRY)
    assert codec.source == TopicPartition("planes-raw", 1)
    assert isinstance(codec.fold, Upsert)
    assert codec.store_key(b"\x00\x00\x00\x05", ()) == b"\x80\x00\x00\x05"
    assert codec.decode_value(b'{"a": 1}', ()) == b'{"a": 1}'
    with pytest.raises(DecodeError):
        codec.store_key(b"5", ())
    with pytest.raises(DecodeError):
        codec.decode_value(b"{", ())


def test_a_codec_says_what_a_bad_value_probably_is_unless_it_is_large() -> None:
    codec = codec_of(TABLE, 0, 4, NO_REGISTRY)
    text = ReadRecord(0, 1, b"k", b"some text", ())
    assert codec.likely_cause(text, "undecodable_value") == "it is text and not JSON: use string"
    assert codec.likely_cause(text, "oversized") is None
    large = text._replace(value=b"some text" * LARGE_VALUE_BYTES)
    assert codec.likely_cause(large, "undecodable_value") is None


def test_the_fold_is_the_one_that_the_fingerprint_names() -> None:
    for table in (TABLE, replace(TABLE, aggregate=FoldSpec("count"))):
        assert codec_of(table, 0, 1, NO_REGISTRY).fold.name == identity_of("g", table, 0, 1).fingerprint["fold"]


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
def test_the_first_key_that_the_partitioner_puts_elsewhere_is_misplaced(partitioner: PartitionerName) -> None:
    table = replace(TABLE, source=replace(TABLE.source, partitioner=partitioner))
    wires = [b"key %d" % number for number in range(60)]
    here = [wire for wire in wires if partition_of(partitioner, wire, 3) == 1]
    elsewhere = [wire for wire in wires if partition_of(partitioner, wire, 3) != 1]
    codec = codec_of(table, 1, 3, NO_REGISTRY)
    assert here
    assert elsewhere
    assert codec.misplaced([]) is None
    assert codec.misplaced(here) is None
    assert codec.misplaced([*here, elsewhere[0], here[0], elsewhere[1]]) == len(here)


def test_where_producers_put_keys_anywhere_none_is_misplaced_and_deletions_leave_marks() -> None:
    source = replace(TABLE.source, partitioner="any", key=KeySpec("json"))
    codec = codec_of(replace(TABLE, source=source), 1, 3, NO_REGISTRY)
    assert codec.misplaced([b'"%d"' % number for number in range(60)]) is None
    assert codec.misplaced([b' "a"']) is None
    assert codec.empty_keys
    assert codec.fold.name == fingerprint(replace(TABLE, source=source), group="g", partitions=3, row_layout=1)["fold"]
    records = [Decoded(b"a", b"1", 5, 0), Decoded(b"a", None, 6, 1), Decoded(b"b", b"2", 7, 2)]
    rows = codec.fold(records, lambda _: None, Slice(-1, (), lambda *_: None))
    assert {key: unpack(row or b"") for key, row in rows.items()} == {
        b"a": Row(b"", 6, 1, deleted=True),
        b"b": Row(b"2", 7, 2),
    }


def test_a_key_whose_canonical_form_belongs_elsewhere_is_misplaced_where_its_wire_form_put_it() -> None:
    table = replace(TABLE, source=replace(TABLE.source, key=KeySpec("uuid")))
    lower, upper = UUID.encode(), UUID.upper().encode()
    count = next(n for n in range(2, 50) if partition_of("murmur2", lower, n) != partition_of("murmur2", upper, n))
    of_lower, of_upper = partition_of("murmur2", lower, count), partition_of("murmur2", upper, count)
    assert codec_of(table, of_lower, count, NO_REGISTRY).misplaced([lower]) is None
    assert codec_of(table, of_upper, count, NO_REGISTRY).misplaced([upper]) == 0
    assert codec_of(table, of_lower, count, NO_REGISTRY).misplaced([lower, upper]) == 1


@pytest.mark.parametrize(("partitioner", "kept"), [("murmur2", True), ("crc32", False)])
def test_an_empty_key_is_a_key_only_where_the_producers_have_a_partition_for_it(
    partitioner: PartitionerName, *, kept: bool
) -> None:
    table = replace(TABLE, source=replace(TABLE.source, partitioner=partitioner))
    assert codec_of(table, 0, 3, NO_REGISTRY).empty_keys is kept


def test_a_key_behind_a_schema_belongs_where_its_own_bytes_put_it() -> None:
    table = replace(TABLE, source=replace(TABLE.source, key=KeySpec("avro")))
    known = Known(FetchedSchemas(avro_schema(1, "string"), avro_schema(2, "string")))
    one, other = framed(1, b"\x02a"), framed(2, b"\x02a")
    count = next(n for n in range(2, 50) if partition_of("murmur2", one, n) != partition_of("murmur2", other, n))
    codec = codec_of(table, partition_of("murmur2", one, count), count, known)
    assert codec.store_key(one, ()) == codec.store_key(other, ())
    assert codec.misplaced([one]) is None
    assert codec.misplaced([one, other]) == 1


def test_the_codec_of_a_table_in_avro_learns_the_schemas_of_its_keys_for_whoever_looks_them_up() -> None:
    source = SourceSpec("orders", KeySpec("avro"), ValueSpec("avro"))
    known = Known(FetchedSchemas(avro_schema(1, "string")))
    codec = codec_of(replace(TABLE, source=source), 0, 1, known)
    assert codec.decode_value(framed(1, b"\x02a"), ()) == b'"a"'
    codec.store_key(framed(1, b"\x02a"), ())
    assert known.keys_of("orders").known == ((1).to_bytes(4, "big"),)
    with pytest.raises(SchemaNeeded):
        codec.store_key(framed(2, b"\x02a"), ())
    with pytest.raises(SchemaNeeded):
        codec.decode_value(framed(2, b"\x02a"), ())
