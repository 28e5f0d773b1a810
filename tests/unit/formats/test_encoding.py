"""What a caller writes becomes a record that ingest makes the same row of."""

import pytest

from tablehouse.catalog.spec import (
    KeyFormatName,
    KeySpec,
    PartitionerName,
    SourceSpec,
    TableSpec,
    ValueFormatName,
    ValueSpec,
)
from tablehouse.errors import InvalidKey, KeySchemaUnknown
from tablehouse.formats.encoding import encoder
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.keys import key_format
from tablehouse.formats.values import value_format
from tests.support.schemas import NO_REGISTRY


def table(
    key: KeyFormatName, value: ValueFormatName = "json", *fields: str, partitioner: PartitionerName = "murmur2"
) -> TableSpec:
    return TableSpec("t", SourceSpec("s", KeySpec(key, fields), ValueSpec(value), partitioner), writable=True)


@pytest.mark.parametrize(
    ("definition", "text", "wire"),
    [
        (table("string"), "h\u00e9/".encode(), "h\u00e9/".encode()),
        (table("bytes"), b"_wA", b"\xff\x00"),
        (table("int"), b"-2", b"\xff\xff\xff\xfe"),
        (table("long"), b"7", b"\x00" * 7 + b"\x07"),
        (
            table("uuid"),
            b"123E4567-E89B-12D3-A456-426614174000",
            b"123e4567-e89b-12d3-a456-426614174000",
        ),
        (table("json", "json", "a", "b"), b'{ "b": 1.0, "a": "x" }', b'{"a":"x","b":1.0}'),
        (table("string"), b"", b""),
    ],
)
def test_a_key_is_written_in_its_canonical_wire_form_which_is_read_as_the_same_key(
    definition: TableSpec, text: bytes, wire: bytes
) -> None:
    record = encoder(definition, NO_REGISTRY).encode(text, b"{}")
    assert (record.wires, record.value) == ((wire,), b"{}")
    keys = key_format(definition.source.key)
    assert keys.store(wire) == keys.parse(text).stored


@pytest.mark.parametrize("key", ["avro", "json_sr", "json_connect"])
def test_a_row_is_not_written_before_a_schema_says_how(key: KeyFormatName) -> None:
    with pytest.raises(KeySchemaUnknown):
        encoder(table(key), NO_REGISTRY).encode(b"1", b"{}")


@pytest.mark.parametrize(
    ("value", "payload"), [("json", b' {"a": 1.50} '), ("string", "\u00e9".encode()), ("bytes", b"\xff\x00")]
)
def test_a_payload_is_written_as_it_is_and_ingest_keeps_it(value: ValueFormatName, payload: bytes) -> None:
    definition = table("string", value)
    record = encoder(definition, NO_REGISTRY).encode(b"k", payload)
    assert (record.wires, record.value) == ((b"k",), payload)
    assert value_format(definition, NO_REGISTRY.schemas).decode(payload) == payload
    deleted = encoder(definition, NO_REGISTRY).encode(b"k", None)
    assert (deleted.wires, deleted.value) == ((b"k",), None)
    assert encoder(definition, NO_REGISTRY).content_type == value_format(definition, NO_REGISTRY.schemas).content_type


@pytest.mark.parametrize(
    ("value", "payload", "reason"),
    [
        ("json", b"{", "it is not JSON"),
        ("json", b'"\xff"', "its JSON is not UTF-8 at byte 1"),
        ("json", b'"\\ud83d"', "half of a surrogate pair"),
        ("json", b"[" * 501 + b"]" * 501, "nested more than 500 deep"),
        ("string", b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_a_payload_that_would_be_a_bad_record_is_refused(value: ValueFormatName, payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        encoder(table("string", value), NO_REGISTRY).encode(b"k", payload)


def test_a_key_that_has_no_partition_of_its_own_is_refused() -> None:
    with pytest.raises(InvalidKey, match="empty"):
        encoder(table("string", partitioner="crc32"), NO_REGISTRY).encode(b"", b"{}")
    with pytest.raises(InvalidKey):
        encoder(table("int"), NO_REGISTRY).encode(b"x", None)
