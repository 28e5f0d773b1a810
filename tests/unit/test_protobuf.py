"""What rows show of Protobuf, from schemas as the registry has them."""

import json
import random
from typing import Any

import pytest

from app.formats.errors import DecodeError
from app.formats.protobuf import ProtobufReader
from app.formats.schemas import Reference, Schema, SchemaNeeded
from tests.support.schemas import FetchedSchemas, framed

FIRST = b"\x00"

SHOP = """
syntax = "proto3";
package shop;
message Order {
  message Line { string what = 1; double price = 2; }
  enum State { NEW = 0; SENT = 1; }
  int64 id = 7;
  string customer = 2;
  repeated Line lines = 3;
  State state = 4;
  map<string, int32> notes = 5;
  bytes raw = 6;
  bool paid = 1;
  optional int32 discount = 8;
  oneof how { string card = 9; uint32 cash = 10; }
  Line extra = 11;
}
message Refund { uint64 order = 1; message Reason { message Detail { sint32 code = 1; } string text = 1; } }
"""


def reader(*texts: str, references: tuple[Reference, ...] = ()) -> ProtobufReader:
    """Read what was written with these schemas, the first of which has id 1."""
    return ProtobufReader(
        FetchedSchemas(*(Schema(number, "PROTOBUF", text, references) for number, text in enumerate(texts, 1)))
    )


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def field(number: int, value: int | bytes) -> bytes:
    """Return a field: a varint, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def place(*indexes: int) -> bytes:
    """Return how serialisers say which message of its schema it is."""
    return b"".join(varint(number << 1) for number in (len(indexes), *indexes))


def test_a_message_shows_its_members_by_name_in_one_order_whatever_is_set() -> None:
    read = reader(SHOP)
    empty = b'{"customer":"","id":"0","lines":[],"notes":{},"paid":false,"raw":"","state":"NEW"}'
    assert read(framed(1, FIRST)) == empty
    content = (
        field(7, 2**63 - 1)
        + field(3, field(1, b"tea"))
        + field(5, field(1, b"z") + field(2, -1))
        + field(5, field(1, b"a") + field(2, 2))
        + field(6, b"\x00\xff")
        + field(4, 1)
        + field(1, 1)
        + field(2, "ü".encode())
        + field(8, 0)
        + field(10, 5)
    )
    assert (
        read(framed(1, FIRST + content))
        == (
            '{"cash":5,"customer":"ü","discount":0,"id":"9223372036854775807","lines":[{"price":0.0,"what":"tea"}],'
            '"notes":{"a":2,"z":-1},"paid":true,"raw":"AP8=","state":"SENT"}'
        ).encode()
    )


@pytest.mark.parametrize(
    ("double", "shows"), [("000000000000f87f", "NaN"), ("000000000000f07f", "Infinity"), ("000000000000f83f", 1.5)]
)
def test_doubles_that_json_lacks_are_strings(double: str, shows: Any) -> None:
    line = b"\x11" + bytes.fromhex(double)
    assert json.loads(reader(SHOP)(framed(1, place(0, 0) + line))) == {"what": "", "price": shows}


@pytest.mark.parametrize(
    ("indexes", "content", "row"),
    [
        (FIRST, b"", None),
        (place(0), b"", None),
        (place(1), field(1, 5), {"order": "5"}),
        (place(0, 0), field(1, b"x"), {"what": "x", "price": 0.0}),
        (place(1, 0, 0), field(1, 1), {"code": -1}),
    ],
)
def test_the_place_of_a_message_is_followed_into_the_schema(indexes: bytes, content: bytes, row: Any) -> None:
    found = json.loads(reader(SHOP)(framed(1, indexes + content)))
    assert found == row if row is not None else "customer" in found


@pytest.mark.parametrize(
    ("indexes", "reason"),
    [
        (place(2), "message 2 of schema 1, which has no such message"),
        (place(0, 7), r"message 0\.7 of schema 1, which"),
        (place(1, 0, 0, 0), r"message 1\.0\.0\.0 of schema 1, which"),
        (place(0, 1), r"message 0\.1 of schema 1, an entry of a map"),
        (b"\x02\x01", "message -1 of schema 1"),
        (b"\x01", "does not say which message"),
        (varint(66), "does not say which message"),
        (b"", "ends before it says which message"),
        (b"\x04\x00", "ends before it says which message"),
        (b"\x80" * 20, "ends before it says which message"),
    ],
)
def test_a_place_where_no_message_is_is_refused(indexes: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        reader(SHOP)(framed(1, indexes))


def test_truncated_messages_are_refused_without_showing_them() -> None:
    content = field(2, b"data of a producer")
    for end in range(1, len(content)):
        with pytest.raises(DecodeError, match="cannot be read with schema 1") as caught:
            reader(SHOP)(framed(1, FIRST + content[:end]))
        assert "data" not in str(caught.value)


def test_of_bytes_that_are_no_message_come_decode_errors_alone() -> None:
    seed = 20130131
    chance, read = random.Random(seed), reader(SHOP)
    good = FIRST + field(7, 5) + field(3, field(1, b"tea")) + field(5, field(1, b"z")) + field(2, b"abc")
    refused = 0
    for _ in range(2000):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        try:
            json.loads(read(framed(1, bytes(bad))), parse_constant=pytest.fail)
        except DecodeError:
            refused += 1
    assert refused > 500, seed


def test_what_is_no_frame_or_of_another_type_is_refused_and_what_is_not_there_asked_for() -> None:
    read = ProtobufReader(FetchedSchemas(Schema(1, "AVRO", '"string"')))
    with pytest.raises(DecodeError, match="schema 1 is of type AVRO, and the table's format is protobuf"):
        read(framed(1, FIRST))
    with pytest.raises(SchemaNeeded, match="2"):
        read(framed(2, FIRST))
    with pytest.raises(DecodeError, match="does not begin with a zero byte"):
        read(b"\x01\0\0\0\x01\x00")


def test_well_known_types_need_no_reference() -> None:
    text = """
    syntax = "proto3";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/any.proto";
    import "google/type/date.proto";
    import "confluent/meta.proto";
    import "confluent/type/decimal.proto";
    message M {
      option (confluent.message_meta) = {doc: "of tests"};
      google.protobuf.Timestamp at = 1;
      google.protobuf.Int64Value some = 2;
      google.protobuf.Struct what = 3;
      google.type.Date day = 4;
      confluent.type.Decimal price = 5 [(confluent.field_meta) = {params: {key: "scale", value: "2"}}];
      google.protobuf.Any any = 6;
    }
    message Other { string x = 1; }
    """
    read = reader(text)
    assert read(framed(1, FIRST)) == b"{}"
    anything = field(1, b"type.googleapis.com/Other") + field(2, field(1, b"y"))
    content = field(1, field(1, 5)) + field(2, field(1, 7)) + field(4, field(1, 2013)) + field(5, field(1, b"\x05"))
    assert json.loads(read(framed(1, FIRST + content + field(6, anything)))) == {
        "at": "1970-01-01T00:00:05Z",
        "some": "7",
        "day": {"year": 2013, "month": 0, "day": 0},
        "price": {"value": "BQ==", "precision": 0, "scale": 0},
        "any": {"@type": "type.googleapis.com/Other", "x": "y"},
    }
    with pytest.raises(DecodeError, match="cannot be read with schema 1"):
        read(framed(1, FIRST + field(6, field(1, b"type.googleapis.com/Nowhere"))))
    with pytest.raises(DecodeError, match="cannot be read with schema 1"):
        read(framed(1, FIRST + field(1, field(1, 2**60))))


def test_references_are_found_by_the_names_under_which_they_are_imported() -> None:
    base = Schema(10, "PROTOBUF", 'syntax = "proto3"; package base; message Id { int32 n = 1; }')
    middle = Schema(
        11,
        "PROTOBUF",
        'syntax = "proto3"; package mid; import "lib/base.proto"; message Who { base.Id id = 1; }',
        (Reference("lib/base.proto", "base", 1, base),),
    )
    text = 'syntax = "proto3"; import "schema.proto"; message M { mid.Who who = 1; }'
    read = reader(text, references=(Reference("schema.proto", "who", 1, middle),))
    assert read(framed(1, FIRST + field(1, field(1, field(1, 5))))) == b'{"who":{"id":{"n":5}}}'


@pytest.mark.parametrize("name", ["../up.proto", "/etc/x.proto", "a//b.proto", "", ".", "a/../../b", "x\0y", "n" * 300])
def test_a_reference_whose_name_is_none_of_a_file_is_refused(name: str) -> None:
    other = Schema(10, "PROTOBUF", 'syntax = "proto3"; message A {}')
    with pytest.raises(DecodeError, match="schema 10 has a reference of the name"):
        reader('syntax = "proto3"; message M {}', references=(Reference(name, "a", 1, other),))(framed(1, FIRST))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('syntax = "proto3"; message M { int32 a = 1 }', 'it:1:44: Expected ";".'),
        ('syntax = "proto3"; import "no.proto"; message M {}', "no.proto: File not found."),
        ('syntax = "proto3"; message M { Nothing a = 1; }', '"Nothing" is not defined.'),
        ("{", "Expected top-level statement"),
    ],
)
def test_a_schema_that_protoc_refuses_is_refused_in_its_words_each_time(
    text: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    read = reader(text)
    for _ in range(2):
        with pytest.raises(DecodeError) as caught:
            read(framed(1, FIRST))
        assert str(caught.value).startswith("schema 1 is no Protobuf that protoc takes: ")
        assert reason in str(caught.value)
        assert "tablehouse" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_proto2_shows_what_is_set_and_its_enums_and_groups() -> None:
    text = """
    syntax = "proto2";
    message M {
      required string name = 1;
      optional int32 n = 2 [default = 7];
      repeated int32 many = 3 [packed = true];
      optional group Part = 4 { optional bool ok = 1; }
      enum E { A = 1; B = 2; }
      optional E e = 5;
      extensions 100 to 200;
    }
    extend M { optional string more = 100; }
    """
    read = reader(text)
    assert read(framed(1, FIRST + field(1, b"x"))) == b'{"many":[],"name":"x"}'
    content = field(1, b"x") + field(2, 1) + field(3, b"\x01\x02") + b"\x23\x08\x01\x24" + field(5, 2)
    assert json.loads(read(framed(1, FIRST + content + field(100, b"y")))) == {
        "name": "x",
        "n": 1,
        "many": [1, 2],
        "part": {"ok": True},
        "e": "B",
        "[more]": "y",
    }


def test_messages_of_one_name_in_two_schemas_do_not_meet() -> None:
    read = reader('syntax = "proto3"; message M { string a = 1; }', 'syntax = "proto3"; message M { bytes b = 1; }')
    assert read(framed(1, FIRST + field(1, b"x"))) == b'{"a":"x"}'
    assert read(framed(2, FIRST + field(1, b"x"))) == b'{"b":"eA=="}'
    assert read(framed(1, FIRST + field(1, b"y"))) == b'{"a":"y"}'
