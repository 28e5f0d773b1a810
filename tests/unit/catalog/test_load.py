import json
from functools import cache
from importlib.resources import files
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from tablehouse.catalog.load import load_catalog
from tablehouse.catalog.spec import KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import CatalogError

SOURCE = "source: {topic: flights, key: string, value: json}"


def problems(tmp_path: Path, text: str) -> list[str]:
    """Return the problems of a file called tables.yaml, without the folder it is in."""
    path = tmp_path / "tables.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    return [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def table(fields: str) -> str:
    return f"tables:\n  - {{name: a, {fields}}}\n"


GOOD = [
    table(SOURCE),
    table(f"{SOURCE}, description: '', version: 3"),
    table(f"{SOURCE}, standbys: 0"),
    table(f"{SOURCE}, columns: [carrier, 'a b', ü]"),
    table(f"{SOURCE}, columns: {{airline: carrier, code: carrier}}"),
    table("source: {topic: A.b_c-1, key: int, value: string, partitioner: crc32}"),
    table("source: {topic: ..., key: {format: long}, value: bytes, partitioner: murmur2}"),
    table("source: {topic: t, key: {format: json, fields: [b, a]}, value: json}"),
    table("source: {topic: t, key: json, value: json}"),
    table("source: {topic: t, key: {format: json, field: id, spellings: [python, go]}, value: json}"),
    table("source: {topic: t, key: {format: json, spellings: [php]}, value: json}"),
    table("source: {topic: t, key: {format: json_sr, field: id, spellings: [python]}, value: json}"),
    table("source: {topic: t, key: string, value: json, partitioner: fnv1a}"),
    table("source: {topic: t, key: string, value: json, partitioner: any}, writable: false"),
    table("source: {topic: t, key: {format: json, field: id}, value: json, envelope: debezium, on_error: stop}"),
    table("source: {topic: t, key: avro, value: {format: avro, schema: 7}, on_error: skip}"),
    table("source: {topic: t, key: json_sr, value: {format: avro, schema: latest}}, columns: [a]"),
    table("source: {topic: t, key: string, value: {format: avro, schema: written}}"),
    table("source: {topic: t, key: string, value: {format: avro, subject: shop.Order}}, writable: true"),
    table("source: {topic: t, key: string, value: {format: avro, schema: latest, subject: t-shop.Order}}"),
    table("source: {topic: t, key: avro, value: {format: avro, schema: 7}}, writable: true"),
    table("source: {topic: t, key: {format: avro, fields: [a, b]}, value: protobuf, envelope: none}"),
    table("source: {topic: t, key: string, value: {format: avro, framing: single_object, schema: 7}}"),
    table("source: {topic: t, key: string, value: json_connect}, columns: [a]"),
    table("source: {topic: t, key: string, value: json, envelope: debezium}, columns: [id, $op, $source.lsn]"),
    table("source: {topic: t, key: string, value: json_sr, envelope: outbox}, columns: {t: $headers.eventType}"),
    "tables:\n"
    + "".join(
        f"  - {{name: t-{key}_1, source: {{topic: {key}, key: {key}, value: json}}}}\n"
        for key in ("string", "bytes", "int", "long", "uuid", "json", "avro", "json_sr", "json_connect")
    ),
    f"tables: [{{name: {'a' * 100}, source: {{topic: {'b' * 249}, key: string, value: json}}}}]",
]

# A file, and its problems. tables.schema.json refuses every one of them too.
BAD = [
    ("[]", ["1: the file: must be a mapping with tables, this is a list"]),
    ("{}", ["1: tables: is missing; it is required"]),
    ("tables:\n", ["1: tables: must be a list, this is nothing"]),
    ("tables: []", ["1: tables: is empty; give at least one item"]),
    ("tables: [17]", ["1: tables[0]: must be a mapping with name and source, this is an integer"]),
    (
        "tabels: []",
        ["1: tabels: is not a field; did you mean tables?", "1: tables: is missing; it is required"],
    ),
    (
        "tables:\n  - name: a\n",
        ["2: tables[0].source: is missing; it is required"],
    ),
    (
        f"tables:\n  - {SOURCE}\n",
        ["2: tables[0].name: is missing; it is required"],
    ),
    (
        f"tables:\n  - name: Planes\n    {SOURCE}\n",
        [("2: tables[0].name: cannot be 'Planes'; use up to 100 lower-case letters, digits, _ and -, a letter first")],
    ),
    (
        f"tables:\n  - name: 2024\n    {SOURCE}\n",
        ["2: tables[0].name: must be text, this is an integer; put it in quotes"],
    ),
    (
        f"tables:\n  - name: yes\n    {SOURCE}\n",
        ["2: tables[0].name: must be text, this is true or false; put it in quotes"],
    ),
    (
        f"tables:\n  - name: a:get\n    {SOURCE}\n",
        [("2: tables[0].name: cannot be 'a:get'; use up to 100 lower-case letters, digits, _ and -, a letter first")],
    ),
    (
        f"tables:\n  - name: a\n    {SOURCE}\n    colums: [b]\n",
        ["4: tables[0].colums: is not a field; did you mean columns?"],
    ),
    (
        f"tables:\n  - name: a\n    {SOURCE}\n    zzz: 1\n",
        [
            (
                "4: tables[0].zzz: is not a field; use one of name, source, description, columns, version, standbys, "
                "writable"
            )
        ],
    ),
    (
        table(f"{SOURCE}, description: 5"),
        ["2: tables[0].description: must be text, this is an integer; put it in quotes"],
    ),
    (
        table(f"{SOURCE}, description:"),
        ["2: tables[0].description: must be text, this is nothing"],
    ),
    (table(f"{SOURCE}, version: 0"), ["2: tables[0].version: must be an integer of at least 1"]),
    (table(f"{SOURCE}, version: '2'"), ["2: tables[0].version: must be an integer of at least 1"]),
    (table(f"{SOURCE}, standbys: -1"), ["2: tables[0].standbys: must be an integer of at least 0"]),
    (table(f"{SOURCE}, standbys: two"), ["2: tables[0].standbys: must be an integer of at least 0"]),
    (table(f"{SOURCE}, version: true"), ["2: tables[0].version: must be an integer of at least 1"]),
    (table(f"{SOURCE}, columns: []"), ["2: tables[0].columns: is empty; give at least one item"]),
    (
        table(f"{SOURCE}, columns: {{}}"),
        ["2: tables[0].columns: is empty; give at least one entry, or leave it out"],
    ),
    (table(f"{SOURCE}, columns: [b, b]"), ["2: tables[0].columns[1]: repeats 'b'; name each once"]),
    (
        table(f"{SOURCE}, columns: {{b: [c]}}"),
        ["2: tables[0].columns.b: must be text, this is a list"],
    ),
    (
        table(f"{SOURCE}, columns: b"),
        ["2: tables[0].columns: must be a mapping with at least one entry, this is text"],
    ),
    (
        table(f"{SOURCE}, columns: {{'a\"b': c}}"),
        [
            (
                "2: tables[0].columns.a\"b: cannot be a name here; use a member's name, without quotes, "
                "backslashes and control characters"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: string}, columns: [b]"),
        [
            (
                "2: tables[0].columns: cannot be taken from a value of format string; leave it out, or use one of "
                "avro, json, json_connect, json_sr, protobuf"
            )
        ],
    ),
    (
        table("source: flights"),
        ["2: tables[0].source: must be a mapping with topic and key and value, this is text"],
    ),
    (
        table("source: {topic: a/b, key: string, value: json}"),
        [("2: tables[0].source.topic: cannot be 'a/b'; use a topic's name: up to 249 letters, digits, '.', _ and -")],
    ),
    (
        table("source: {topic: .., key: string, value: json}"),
        [("2: tables[0].source.topic: cannot be '..'; use a topic's name: up to 249 letters, digits, '.', _ and -")],
    ),
    (
        table("source: {topic: t, key: strng, value: json}"),
        ["2: tables[0].source.key: cannot be 'strng'; did you mean string?"],
    ),
    (
        table("source: {topic: t, key: protobuf, value: parquet}"),
        [
            (
                "2: tables[0].source.key: cannot be 'protobuf'; use one of string, bytes, int, long, uuid, json, avro, "
                "json_sr, json_connect"
            ),
            (
                "2: tables[0].source.value: cannot be 'parquet'; use one of json, string, bytes, avro, protobuf, "
                "json_sr, json_connect"
            ),
        ],
    ),
    (
        table("source: {topic: t, key: [string], value: json}"),
        [
            (
                "2: tables[0].source.key: must be one of string, bytes, int, long, uuid, json, avro, json_sr, "
                "json_connect; this is a list"
            )
        ],
    ),
    (
        table("source: {topic: t, key: {fields: [a]}, value: json}"),
        ["2: tables[0].source.key.format: is missing; it is required"],
    ),
    (
        table("source: {topic: t, key: {format: json, field: id, fields: [id]}, value: json}"),
        [
            (
                "2: tables[0].source.key.field: cannot be combined with fields; use field if URLs contain "
                "only the value of one member, else fields"
            )
        ],
    ),
    (
        table("source: {topic: t, key: {format: int, fields: [id]}, value: json}"),
        [
            (
                "2: tables[0].source.key.fields: belongs to formats avro and json and json_connect and json_sr, "
                "this key is int; leave it out"
            )
        ],
    ),
    (
        table("source: {topic: t, key: {format: uuid, field: id}, value: json}"),
        [
            (
                "2: tables[0].source.key.field: belongs to formats avro and json and json_connect and json_sr, this "
                "key is uuid; leave it out"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: {format: json, schema: 1}}"),
        ["2: tables[0].source.value.schema: belongs to format avro, this value is json; leave it out"],
    ),
    (
        table("source: {topic: t, key: string, value: {format: avro, schema: [1]}}"),
        [
            (
                "2: tables[0].source.value.schema: must be latest, written, the id of a schema in the registry, or the "
                "path of a file with one"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: {format: avro, framing: none}}"),
        [
            (
                "2: tables[0].source.value.schema: cannot be latest with framing none, whose records do not refer to "
                "a schema of the registry; give the schema they are written with: the path of a file, or its id in the "
                "registry"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: string, envelope: debezium}"),
        [
            (
                "2: tables[0].source.envelope: cannot be debezium around a value of format string; use one of avro, "
                "json, json_connect, json_sr, protobuf"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: json, envelope: debezum}"),
        ["2: tables[0].source.envelope: cannot be 'debezum'; did you mean debezium?"],
    ),
    (
        table("source: {topic: t, key: string, value: json, on_error: dead-letter}"),
        ["2: tables[0].source.on_error: cannot be 'dead-letter'; did you mean dead_letter?"],
    ),
    (
        table(f"{SOURCE}, columns: [$op]"),
        [
            (
                "2: tables[0].columns.$op: cannot be taken from '$op'; use a member of the value; names that begin "
                "with $ belong to an envelope, and this source has none"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: json, envelope: debezium}, columns: {at: $source}"),
        [
            (
                "2: tables[0].columns.at: cannot be taken from '$source'; use a member of the row, $op, $ts_ms, or "
                "$source. and a member of the event's source block"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: json, envelope: outbox}, columns: {at: $op}"),
        [
            (
                "2: tables[0].columns.at: cannot be taken from '$op'; use a member of the payload, or $headers. and "
                "the name of a header"
            )
        ],
    ),
    (table(f"{SOURCE}, writable: 1"), ["2: tables[0].writable: must be true or false, this is an integer"]),
    (
        table(f"{SOURCE}, writable: true, columns: [a]"),
        [("2: tables[0].writable: cannot be true with columns: a row does not determine its record; leave it out")],
    ),
    (
        table("source: {topic: t, key: json_sr, value: protobuf, envelope: outbox}, writable: true"),
        [
            f"2: tables[0].writable: cannot be true with {obstacle}: a row does not determine its record; leave it out"
            for obstacle in ("envelope outbox", "value protobuf", "key json_sr")
        ],
    ),
    (
        table("source: {topic: t, key: string, value: {format: avro, schema: written}}, writable: true"),
        [
            (
                "2: tables[0].writable: cannot be true with schema written: a row does not determine the schema "
                "of its record; leave it out"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: {format: avro, schema: written, framing: none}}"),
        [
            (
                "2: tables[0].source.value.schema: cannot be written with framing none, whose records do not refer to "
                "a schema of the registry; give the schema they are written with: the path of a file, or its id in the "
                "registry"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: {format: avro, schema: 7, subject: s}}"),
        [
            (
                "2: tables[0].source.value.subject: belongs to schema latest, and this value has another schema; leave "
                "it out"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: {format: json, subject: s}}"),
        ["2: tables[0].source.value.subject: belongs to format avro, this value is json; leave it out"],
    ),
    (
        table("source: {topic: t, key: string, value: {format: avro, subject: ''}}"),
        ["2: tables[0].source.value.subject: cannot be ''; use the name of a subject in the schema registry"],
    ),
    (
        table("source: {topic: t, key: string, value: json_connect}, writable: true"),
        [
            (
                "2: tables[0].writable: cannot be true with value json_connect: a row does not determine its "
                "record; leave it out"
            )
        ],
    ),
    (
        table("source: {topic: t, key: string, value: json, partitioner: any}, writable: true"),
        [
            (
                "2: tables[0].writable: cannot be true with partitioner any: another partition may have a record of "
                "the key with a later timestamp; leave it out"
            )
        ],
    ),
    (
        table("source: {topic: t, key: {format: json, spellings: [pyton]}, value: json}"),
        ["2: tables[0].source.key.spellings[0]: cannot be 'pyton'; did you mean python?"],
    ),
    (
        table("source: {topic: t, key: {format: json, spellings: [go, go]}, value: json}"),
        ["2: tables[0].source.key.spellings[1]: repeats go; name each once"],
    ),
    (
        table("source: {topic: t, key: {format: json, spellings: []}, value: json}"),
        ["2: tables[0].source.key.spellings: is empty; give at least one item"],
    ),
    (
        table("source: {topic: t, key: {format: json, spellings: go}, value: json}"),
        ["2: tables[0].source.key.spellings: must be a list, this is text"],
    ),
    (
        table("source: {topic: t, key: {format: json_connect, spellings: [go]}, value: json}"),
        [
            (
                "2: tables[0].source.key.spellings: belongs to formats json and json_sr, this key is json_connect; "
                "leave it out"
            ),
        ],
    ),
    (
        table("source: {topic: t, key: {format: json, fields: [a, a]}, value: json}"),
        ["2: tables[0].source.key.fields[1]: repeats 'a'; name each once"],
    ),
    (
        table("source: {topic: t, key: string, value: json, partitioner: crc}"),
        ["2: tables[0].source.partitioner: cannot be 'crc'; did you mean crc32?"],
    ),
]
BAD += [
    (
        table(f"{SOURCE}, {field}: 1"),
        [f"2: tables[0].{field}: is not supported by this version; leave it out"],
    )
    for field in ("ttl", "group_by", "aggregate", "window", "changelog")
]
BAD += [
    (
        table(f"source: {{topic: t, key: string, value: json, {field}: none}}"),
        [f"2: tables[0].source.{field}: is not supported by this version; leave it out"],
    )
    for field in ("timestamp",)
]

# What a schema cannot see, because it needs the text of the file or two tables at once.
BAD_BEYOND_THE_SCHEMA = [
    ("", ["1: tables: the file is empty; begin with `tables:` and a list of tables"]),
    ("# nothing\n", ["1: tables: the file is empty; begin with `tables:` and a list of tables"]),
    (
        f"tables:\n  - name: a\n    name: b\n    {SOURCE}\n",
        ["3: tables[0].name: is given twice, first on line 2; keep one"],
    ),
    (
        f"tables:\n  - name: a\n    {SOURCE}\n  - name: a\n    {SOURCE}\n",
        ["4: tables[1].name: a is already the table of line 2; give each its own name"],
    ),
    (
        (
            f"tables:\n  - name: a\n    {SOURCE}\n  - name: b\n"
            "    source: {topic: flights, key: string, value: json, partitioner: crc32}\n"
        ),
        [
            (
                "4: tables[1].source.partitioner: is crc32 here and murmur2 for the same topic in table a; "
                "a topic has one partitioner: that of its producers"
            )
        ],
    ),
    (
        f"tables:\n  - name: users\n    version: 2\n    {SOURCE}\n  - name: users-v2\n    {SOURCE}\n",
        [
            (
                "5: tables[1].name: version 1 of users-v2 would have the changelog of version 2 of table users, "
                "<group>-users-v2-changelog; give one of the two another name"
            )
        ],
    ),
    (
        f"tables:\n  - name: a-v3\n    {SOURCE}\n  - name: a\n    version: 3\n    {SOURCE}\n",
        [
            (
                "4: tables[1].name: version 3 of a would have the changelog of version 1 of table a-v3, "
                "<group>-a-v3-changelog; give one of the two another name"
            )
        ],
    ),
    (
        "tables:\n\t- name: a\n",
        ["2: is not YAML: found character '\\t' that cannot start any token; indent with spaces"],
    ),
    ("a: 1\n---\nb: 2\n", ["2: is not YAML: but found another document; remove the line ---"]),
    (
        "tables:\n  - name: a\n   version: 2\n",
        [
            (
                "3: is not YAML: expected <block end>, but found '<block mapping start>'; align the line with the ones "
                "that it belongs to"
            ),
        ],
    ),
    (
        "tables:\n  - name: a\n    description: it is: bad\n",
        [
            (
                "3: is not YAML: mapping values are not allowed here; put text that contains a colon and a space into "
                "quotes, and check the indentation"
            ),
        ],
    ),
    (
        "tables:\n  - name: @a\n",
        ["2: is not YAML: found character '@' that cannot start any token; put text that begins with it into quotes"],
    ),
    (
        "tables:\n  - name: a\n    columns: [a, b\n",
        [
            (
                "4: is not YAML: expected ',' or ']', but got '<stream end>'; a bracket or brace is not closed, or a "
                "comma is missing"
            ),
        ],
    ),
    ("tables: \x01", ["1: is not YAML: special characters are not allowed (character 0x1)"]),
    (
        table(f"{SOURCE}, version: !!int two"),
        ["2: tables[0].version: must be an integer of at least 1"],
    ),
    (
        table("source: !!python/object/apply:os.getcwd []"),
        [
            (
                "2: tables[0].source: must be a mapping with topic and key and value, this is a value tagged "
                "tag:yaml.org,2002:python/object/apply:os.getcwd"
            )
        ],
    ),
]


def test_a_file_becomes_tables_with_their_sources_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(
        """
tables:
  - name: planes
    description: The aircraft.
    source: {topic: planes, key: string, value: json}
    columns: {built: year, maker: manufacturer}
    version: 2
  - name: legs
    source:
      topic: legs
      key: {format: json, fields: [carrier, flight]}
      value: bytes
      partitioner: crc32
  - name: plane_models
    source: {topic: planes, key: string, value: json}
    columns: [model]
    standbys: 2
""",
        encoding="utf-8",
    )
    catalog = load_catalog(path)
    assert list(catalog.tables.values()) == [
        TableSpec(
            "planes",
            SourceSpec("planes", KeySpec("string"), ValueSpec("json"), "murmur2"),
            "The aircraft.",
            {"built": "year", "maker": "manufacturer"},
            2,
        ),
        TableSpec("legs", SourceSpec("legs", KeySpec("json", ("carrier", "flight")), ValueSpec("bytes"), "crc32")),
        TableSpec(
            "plane_models",
            SourceSpec("planes", KeySpec("string"), ValueSpec("json")),
            columns={"model": "model"},
            standbys=2,
        ),
    ]
    assert catalog.topics == ("planes", "legs")
    assert [spec.name for spec in catalog.tables_of("planes")] == ["planes", "plane_models"]
    assert catalog.tables_of("elsewhere") == ()
    assert catalog.standbys == {"planes": 2, "legs": 1}


def test_names_that_only_look_like_a_version_of_another_table_are_names(tmp_path: Path) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(
        f"tables:\n  - name: users\n    version: 3\n    {SOURCE}\n  - name: users-v2\n    version: 2\n    {SOURCE}\n",
        encoding="utf-8",
    )
    assert [table.log_name for table in load_catalog(path).tables.values()] == ["users-v3", "users-v2-v2"]


@pytest.mark.parametrize("text", GOOD)
def test_a_good_file_is_good_for_the_loader_and_for_the_schema(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_catalog(path).tables
    assert list(schema().iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(("text", "expected"), BAD)
def test_a_bad_file_is_refused_with_file_line_field_and_by_the_schema_too(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    assert problems(tmp_path, text) == [f"tables.yaml:{problem}" for problem in expected]
    assert list(schema().iter_errors(yaml.safe_load(text)))


@pytest.mark.parametrize(("text", "expected"), BAD_BEYOND_THE_SCHEMA)
def test_what_the_schema_cannot_see_is_refused_with_its_line(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert problems(tmp_path, text) == [f"tables.yaml:{problem}" for problem in expected]


def test_every_problem_of_a_file_is_reported_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = """
tables:
  - name: A
    source: {topic: t, key: string, value: xml}
    ttl: 3d
  - source: {topic: t, key: string}
"""
    lines = [problem.split(":")[1:3] for problem in problems(tmp_path, text)]
    assert lines == [
        ["3", " tables[0].name"],
        ["4", " tables[0].source.value"],
        ["5", " tables[0].ttl"],
        ["6", " tables[1].name"],
        ["6", " tables[1].source.value"],
    ]


def test_a_list_that_contains_itself_is_refused_like_any_other_list(tmp_path: Path) -> None:
    assert problems(tmp_path, "tables: &all [*all]") == [
        "tables.yaml:1: tables[0]: must be a mapping with name and source, this is a list"
    ]


def test_yaml_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "[" * 1_000) == ["tables.yaml: is nested too deeply"]


def test_a_file_that_is_not_there_or_not_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tables.yaml"
    with pytest.raises(CatalogError, match=r"tables\.yaml: cannot be read \(No such file or directory\)"):
        load_catalog(path)
    path.write_bytes(b"tables: \xff")
    with pytest.raises(CatalogError, match=r"tables\.yaml: is not UTF-8 at byte 8; save the file as UTF-8"):
        load_catalog(path)


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema().schema)


@cache
def schema() -> jsonschema.Draft202012Validator:
    text = files("tablehouse.catalog").joinpath("tables.schema.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))
