from dataclasses import replace
from pathlib import Path

import pytest

from tablehouse.catalog.fingerprint import catalog_digest, difference, digest, fingerprint
from tablehouse.catalog.spec import Catalog, KeySpec, SchemaFile, SourceSpec, TableSpec, ValueSpec

TABLE = TableSpec(
    "planes",
    SourceSpec("planes", KeySpec("json", ("a", "b")), ValueSpec("json")),
    "The aircraft.",
    {"built": "year", "maker": "manufacturer"},
)
NOW = fingerprint(TABLE, group="shop", partitions=12, row_layout=1)


def with_source(**changes: object) -> TableSpec:
    return replace(TABLE, source=replace(TABLE.source, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (with_source(topic="plane"), "source was planes and is now plane"),
        (
            with_source(key=KeySpec("json", ("b", "a"))),
            'key_fields was ["a","b"] and is now ["b","a"]',
        ),
        (with_source(key=KeySpec("json", ("a", "b"), bare=True)), "key_bare was (not recorded) and is now true"),
        (
            with_source(key=KeySpec("json", ("a", "b"), spellings=("python",))),
            'key_spellings was (not recorded) and is now ["python"]',
        ),
        (with_source(envelope="debezium"), "envelope was none and is now debezium"),
        (with_source(partitioner="crc32"), "partitioner was murmur2 and is now crc32"),
        (
            replace(TABLE, columns={"maker": "manufacturer", "built": "year"}),
            (
                'columns was [["built","year"],["maker","manufacturer"]] '
                'and is now [["maker","manufacturer"],["built","year"]]'
            ),
        ),
        (
            replace(TABLE, columns=None),
            'columns was [["built","year"],["maker","manufacturer"]] and is now null',
        ),
    ],
)
def test_a_definition_that_makes_other_rows_differs_in_a_sentence_naming_the_part(
    changed: TableSpec, sentence: str
) -> None:
    now = fingerprint(changed, group="shop", partitions=12, row_layout=1)
    assert difference(NOW, now) == [sentence]


def test_a_table_of_keys_in_any_partition_has_another_fold() -> None:
    now = fingerprint(with_source(partitioner="any"), group="shop", partitions=12, row_layout=1)
    assert difference(NOW, now) == [
        "partitioner was murmur2 and is now any",
        "fold was upsert and is now marked_upsert",
    ]
    assert digest(now) != digest(NOW)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (ValueSpec("avro", "none", 7), "value_framing was registry and is now none"),
        (ValueSpec("avro", schema=8), "value_schema was 7 and is now 8"),
        (
            ValueSpec("avro", schema=SchemaFile(Path("a.avsc"), '"int"')),
            "value_schema was 7 and is now file 3f2b87a9fe7cc9b13835598c3981cd45",
        ),
    ],
)
def test_the_framing_and_the_schema_of_avro_values_are_parts(changed: ValueSpec, sentence: str) -> None:
    seven = fingerprint(with_source(value=ValueSpec("avro", schema=7)), group="shop", partitions=12, row_layout=1)
    now = fingerprint(with_source(value=changed), group="shop", partitions=12, row_layout=1)
    assert difference(seven, now) == [sentence]


def test_partition_count_and_row_layout_are_parts() -> None:
    assert difference(NOW, fingerprint(TABLE, group="shop", partitions=13, row_layout=2)) == [
        "partitions was 12 and is now 13",
        "row_layout was 1 and is now 2",
    ]


def test_what_changes_no_row_is_no_part() -> None:
    other = replace(with_source(on_error="stop"), description="Other words.", standbys=3, writable=True)
    assert fingerprint(other, group="shop", partitions=12, row_layout=1) == NOW


def test_group_table_and_version_are_parts_since_the_name_of_a_changelog_does_not_tell_them_apart() -> None:
    other = replace(TABLE, name="aircraft", version=2)
    assert difference(NOW, fingerprint(other, group="shop-eu", partitions=12, row_layout=1)) == [
        "group was shop and is now shop-eu",
        "table was planes and is now aircraft",
        "version was 1 and is now 2",
    ]


def test_a_part_that_only_one_release_knows_is_a_difference() -> None:
    older = {name: value for name, value in NOW.items() if name != "envelope"}
    assert difference(older, NOW) == ["envelope was (not recorded) and is now none"]
    assert difference(NOW, older) == ["envelope was none and is now (not recorded)"]


def test_a_fingerprint_keeps_its_bytes_from_release_to_release() -> None:
    assert NOW == {
        "group": "shop",
        "table": "planes",
        "version": "1",
        "source": "planes",
        "key": "json",
        "key_fields": '["a","b"]',
        "value": "json",
        "partitioner": "murmur2",
        "envelope": "none",
        "columns": '[["built","year"],["maker","manufacturer"]]',
        "fold": "upsert",
        "partitions": "12",
        "row_layout": "1",
    }
    assert digest(NOW) == digest(dict(reversed(NOW.items())))
    assert digest(NOW) == "8cae99871d2ef60c7af5d8f7fbd74a9d"


def test_workers_with_the_same_tables_have_the_same_catalog_digest() -> None:
    legs = replace(TABLE, name="legs")
    catalog = Catalog({"planes": TABLE, "legs": legs})
    reordered = Catalog({"legs": replace(legs, description="Other words."), "planes": TABLE})
    assert catalog_digest(reordered) == catalog_digest(catalog)


def test_another_version_name_or_definition_is_another_catalog_digest() -> None:
    digests = {
        catalog_digest(Catalog({"planes": TABLE})),
        catalog_digest(Catalog({"planes": replace(TABLE, version=2)})),
        catalog_digest(Catalog({"aircraft": TABLE})),
        catalog_digest(Catalog({"planes": with_source(topic="plane")})),
        catalog_digest(Catalog({"planes": TABLE, "legs": TABLE})),
    }
    assert len(digests) == 5


def test_a_subject_is_a_part_where_one_is_named() -> None:
    before, now = (
        fingerprint(with_source(value=value), group="shop", partitions=12, row_layout=1)
        for value in (ValueSpec("avro"), ValueSpec("avro", subject="shop.Order"))
    )
    assert difference(before, now) == ["value_subject was (not recorded) and is now shop.Order"]
