"""What rows show of Protobuf, from schemas as the registry has them."""

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.protobuf import ProtobufReader
from tablehouse.formats.schemas import Reference, Schema, SchemaNeeded
from tablehouse.turns import finish
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


def test_a_large_message_is_read_in_the_thread_as_it_is_at_once() -> None:
    read = reader(SHOP)
    lines = framed(1, FIRST + field(3, field(1, b"tea")) * 5_000)
    assert finish(read.in_pieces(lines)) == read(lines)
    with pytest.raises(DecodeError, match="cannot be read with schema 1"):
        finish(read.in_pieces(lines[:-1]))
    with pytest.raises(SchemaNeeded):
        finish(read.in_pieces(framed(2, FIRST)))


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
    with pytest.raises(DecodeError, match=r"any is a google\.protobuf\.Any of type Nowhere, which"):
        read(framed(1, FIRST + field(6, field(1, b"type.googleapis.com/Nowhere"))))
    with pytest.raises(DecodeError, match="at has no form in Protobuf"):
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
        assert str(caught.value).startswith("schema 1 is not valid Protobuf: ")
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


# What the parser lets pass, and JSON has no form for

OLD = """
syntax = "proto2";
import "google/protobuf/any.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
message Old {
  optional string name = 1;
  repeated string names = 2;
  map<string, string> notes = 3;
  required int32 number = 4;
  enum Kind { A = 0; B = 1; }
  optional Kind kind = 5;
  repeated Kind kinds = 6;
  optional group Part = 7 { optional string title = 1; optional int64 count = 2; }
  optional float ratio = 8;
  optional google.protobuf.Any any = 9;
  optional google.protobuf.Timestamp at = 10;
  optional Old inner = 11;
  map<string, Kind> graded = 12;
  oneof how { string card = 13; uint64 cash = 14; }
  optional bytes raw = 15;
  optional google.protobuf.Duration took = 16;
  optional google.protobuf.Value what = 17;
  map<sint64, bytes> blobs = 18;
  map<bool, double> sums = 19;
  extensions 100 to 200;
}
message Free { extensions 100 to max; }
extend Old { optional string more = 100; }
extend Free { optional Old old = 101; }
"""

#: A field that OLD requires, alone and with the place of its message.
NUMBER = field(4, 1)
LATIN = "café".encode("latin-1")
EMPTY = {"blobs": {}, "graded": {}, "kinds": [], "names": [], "notes": {}, "number": 1, "sums": {}}


def entry(key: int | bytes, value: int | bytes) -> bytes:
    return field(1, key) + field(2, value)


def packed(name: bytes, content: bytes) -> bytes:
    """Return a google.protobuf.Any."""
    return field(1, b"type.googleapis.com/" + name) + field(2, content)


def old(content: bytes, message: bytes = FIRST) -> Any:
    return json.loads(reader(OLD)(framed(1, message + content)))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (field(1, LATIN), "name"),
        (field(2, b"a") + field(2, LATIN), "names"),
        (field(3, entry(b"k", LATIN)), "notes"),
        (field(3, entry(LATIN, b"v")), "notes"),
        (field(12, entry(LATIN, 0)), "graded"),
        (b"\x3b" + field(1, LATIN) + b"\x3c", "part.title"),
        (field(13, LATIN), "card"),
        (field(11, NUMBER + field(11, NUMBER + field(1, LATIN))), "inner.inner.name"),
        (field(100, LATIN), "more"),
        (field(9, packed(b"Old", NUMBER + field(2, LATIN))), "any.names"),
        (field(9, packed(b"Free", field(101, NUMBER + field(1, LATIN)))), "any.old.name"),
    ],
)
def test_a_string_of_proto2_that_is_not_utf_8_is_refused_by_its_name(content: bytes, name: str) -> None:
    with pytest.raises(DecodeError, match=f"^{name} is a string that is not UTF-8"):
        old(NUMBER + content)


def test_bytes_and_strings_that_look_like_bytes_are_what_they_are() -> None:
    text = b"b'caf\\\\xe9'"
    content = (
        NUMBER + field(1, text) + field(15, LATIN) + field(18, entry(1, LATIN)) + field(3, entry("ü".encode(), text))
    )
    assert old(content) == EMPTY | {
        "name": text.decode(),
        "raw": "Y2Fm6Q==",
        "blobs": {"-1": "Y2Fm6Q=="},
        "notes": {"ü": text.decode()},
    }


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "number"),
        (NUMBER + field(11, b""), "inner.number"),
        (NUMBER + field(9, packed(b"Old", field(11, NUMBER))), "any.number"),
    ],
)
def test_a_message_without_a_field_that_its_schema_requires_is_refused(content: bytes, name: str) -> None:
    with pytest.raises(DecodeError, match=f"^it lacks {name}, which its schema requires"):
        old(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            field(9, packed(b"shop.Order", b"")),
            "any is a google.protobuf.Any of type shop.Order, which its schema does not",
        ),
        (field(9, packed(b"o h\n", b"")), "any is a google.protobuf.Any of a type that is no name, which its schema"),
        (field(9, field(2, b"x")), "any is a google.protobuf.Any of a type that is no name"),
        (field(9, packed(b"Old", b"\xff")), "any does not have the Old that it says"),
        (field(10, field(1, 253_402_300_800)), "at has no form in Protobuf's JSON: a Timestamp is from the years 1 to"),
        (field(11, NUMBER + field(10, field(1, -62_135_596_801))), "at has no form in Protobuf's JSON"),
        (field(16, field(1, 315_576_000_001)), "took has no form in Protobuf's JSON"),
        (field(17, b"\x11" + struct.pack("<d", math.nan)), "what has no form in Protobuf's JSON"),
    ],
)
def test_what_has_no_form_in_protobufs_json_is_refused_by_its_name(content: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=f"^{reason}"):
        old(NUMBER + content)


def test_values_at_the_ends_of_their_types_are_those_of_protobufs_json() -> None:
    content = (
        NUMBER
        + field(5, 7)  # a closed enum without that value: as if it were not there
        + field(6, 7)
        + field(6, 1)
        + field(12, entry(b"k", 7))
        + b"\x3b"
        + field(1, b"t")
        + field(2, 2**63 - 1)
        + b"\x3c"
        + b"\x45"
        + struct.pack("<f", 0.1)
        + field(14, 2**64 - 1)
        + field(10, field(1, 253_402_300_799) + field(2, 999_999_999))
        + field(19, field(1, 1) + b"\x11" + struct.pack("<d", -math.inf))
        + field(18, entry(2**64 - 1, b""))
        + field(9, b"")
    )
    assert old(content) == EMPTY | {
        "kinds": ["B"],
        "part": {"title": "t", "count": "9223372036854775807"},
        "ratio": 0.1,
        "cash": "18446744073709551615",
        "at": "9999-12-31T23:59:59.999999999Z",
        "sums": {"true": "-Infinity"},
        "blobs": {"-9223372036854775808": ""},
        "any": {},
    }
    open_enum = reader('syntax = "proto3"; message M { enum K { A = 0; } K k = 1; repeated float f = 2; }')
    floats = b"\x12\x08" + struct.pack("<ff", 0.1, -3.4028234663852886e38)
    assert open_enum(framed(1, FIRST + field(1, 7) + floats)) == b'{"f":[0.1,-3.4028235e38],"k":7}'


TREE = 'syntax = "proto3"; message T { repeated T t = 1; int32 n = 2; }'


def test_messages_may_be_nested_up_to_a_limit_in_an_any_too() -> None:
    def nested(depth: int, wrap: Callable[[bytes], bytes]) -> bytes:
        content = NUMBER
        for _ in range(depth - 1):
            content = NUMBER + wrap(content)
        return content

    def inner(content: bytes) -> bytes:
        return field(11, content)

    def in_any(content: bytes) -> bytes:  # two messages
        return field(9, packed(b"Old", content))

    assert old(nested(100, inner))["inner"]["inner"]["number"] == 1
    assert old(nested(50, in_any))["any"]["any"]["number"] == 1
    for content in (nested(101, inner), nested(51, in_any), nested(1000, in_any)):
        with pytest.raises(DecodeError, match="nested more than 100 deep"):
            old(content)
    tree = b""
    for _ in range(99):
        tree = field(1, tree)
    assert reader(TREE)(framed(1, FIRST + tree)).count(b"[") == 100
    with pytest.raises(DecodeError):
        reader(TREE)(framed(1, FIRST + field(1, field(1, field(1, tree)))))
