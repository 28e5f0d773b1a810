"""Recognises data that is in another format than expected, and suggests what to do.

The messages describe how data begins and never quote its content.
"""

import re
from collections.abc import Callable, Sequence

from tablehouse.catalog.spec import REGISTRY_FORMATS
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import FRAME_SIZE, KEY_HEADER, VALUE_HEADER, frame_of, header, schema_id
from tablehouse.formats.json_text import decode_json
from tablehouse.formats.schemas import FORMAT_OF_KIND, SchemaKind, SchemaName

#: The first bytes of Avro's single-object encoding (Avro specification, "Single-object encoding"), and of an Avro file.
SINGLE_OBJECT_PREFIX, _CONTAINER_PREFIX = b"\xc3\x01", b"Obj\x01"

#: The header of AWS Glue's serializers: a version, a compression (0 none, 5 zlib), and a schema version's uuid.
_GLUE = re.compile(rb"\x03[\x00\x05][\s\S]{16}")

#: Apicurio's serializers write an id of 8 bytes after the zero byte, unless they are told to be compatible.
_APICURIO_FRAME_SIZE = 9

#: Headers in which its serializers can name the schema instead.
_APICURIO_HEADER = re.compile(r"apicurio\.(value|key)\.(globalId|contentId|artifactId)")

_GZIP_PREFIX, _ZSTD_PREFIX, _BYTE_ORDER_MARK = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf"

_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PRINTABLE = re.compile(rb"[\x20-\x7e]+")

_EMPTY = "it is empty: a delete is a record whose value is null, not an empty one"

_APICURIO_HEADERS = (
    "Apicurio's serializer put the schema's id into headers: have producers write it in front of the data "
    "(apicurio.registry.headers.enabled=false, apicurio.registry.use-id=contentId, "
    "apicurio.registry.id-handler=io.apicurio.registry.serde.Legacy4ByteIdHandler)"
)


def _has_apicurio_id(data: bytes) -> bool:
    return len(data) > _APICURIO_FRAME_SIZE and data[:FRAME_SIZE] == bytes(FRAME_SIZE) and any(data[FRAME_SIZE:9])


#: Tests for the first bytes of data that no format can read, each with the cause and the remedy.
_FRAMINGS: Sequence[tuple[Callable[[bytes], object], str]] = (
    (
        _GLUE.match,
        (
            "it begins as AWS Glue's serializer writes it, with the uuid of a schema version, which no format reads: "
            "have producers write with a serializer of a Confluent-compatible registry, or plain JSON"
        ),
    ),
    (
        _has_apicurio_id,
        (
            "it begins with 0x00 and an id of 8 bytes, as Apicurio's serializer writes it: have producers write ids "
            "of 4 bytes (apicurio.registry.id-handler=io.apicurio.registry.serde.Legacy4ByteIdHandler)"
        ),
    ),
    (
        lambda data: data.startswith(SINGLE_OBJECT_PREFIX),
        (
            "it begins as Avro's single-object encoding does: use `value: {format: avro, framing: single_object, "
            "schema: <file or id>}`"
        ),
    ),
    (
        lambda data: data.startswith(_CONTAINER_PREFIX),
        "it is a whole Avro file, which no format reads: have producers write one record per message",
    ),
    (
        lambda data: data.startswith((_GZIP_PREFIX, _ZSTD_PREFIX)),
        "it is compressed by the producer itself, which no format reads: set the producer's compression.type",
    ),
)

#: Returns the kind of a schema by its id: AVRO, PROTOBUF or JSON; None when the registry does not know the id.
KindOfSchema = Callable[[int], SchemaKind | None]


def framing_of(data: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> str | None:
    """Return the framing of data that no format can read, and the remedy; None if no such framing is found."""
    if any(_APICURIO_HEADER.fullmatch(name) for name, _ in headers):
        return _APICURIO_HEADERS
    return next((cause for is_it, cause in _FRAMINGS if is_it(data)), None)


def frame_id(data: bytes) -> int | None:
    """Return the id in front of data that may have one in the framing of Confluent's serializers."""
    if len(data) <= FRAME_SIZE:
        return None
    try:
        number = schema_id(data)
    except DecodeError:
        return None
    return number if 0 < number < 1 << 31 else None


def schema_named(data: bytes, headers: Sequence[tuple[str, bytes]], named_by: str) -> SchemaName | None:
    """Return the name of the schema of a value, or with `named_by` of a key; None if it seems to have none."""
    if header(headers, named_by) is None:
        return frame_id(data)
    try:
        return frame_of(data, headers, named_by).schema
    except DecodeError:
        return None


def cause_of_value(
    format_name: str, data: bytes, headers: Sequence[tuple[str, bytes]], kind_of: KindOfSchema
) -> str | None:
    """Return what a value that is not in a format is likely to be, and the remedy; None if unknown."""
    cause = framing_of(data, headers) if data else _EMPTY
    if cause is None and format_name not in REGISTRY_FORMATS and header(headers, VALUE_HEADER) is not None:
        cause = f"its header {VALUE_HEADER} names its schema: use avro, protobuf or json_sr, whichever it is"
    if cause is None:
        framed = _cause_of_frame(data, kind_of)
        if format_name not in REGISTRY_FORMATS:
            cause = framed or _cause_of_plain(format_name, data) or _cause_of_unknown_frame(data)
        if format_name in REGISTRY_FORMATS and framed is None and is_json(data):
            cause = "it is plain JSON: use json"
    return cause


def _cause_of_plain(format_name: str, data: bytes) -> str | None:
    if data.startswith(_BYTE_ORDER_MARK):
        return "it begins with a byte order mark, which JSON forbids: have the producer leave it out"
    return "it is text and not JSON: use string" if format_name in {"json", "json_connect"} and is_text(data) else None


def cause_of_key(
    format_name: str, data: bytes, headers: Sequence[tuple[str, bytes]], kind_of: KindOfSchema
) -> str | None:
    """Return what a key that is not in a format is likely to be, and the remedy; None if unknown."""
    if (framing := framing_of(data)) is not None:
        return framing
    if format_name not in {"avro", "json_sr"} and header(headers, KEY_HEADER) is not None:
        return f"its header {KEY_HEADER} names its schema: use avro or json_sr, whichever it is"
    if (cause := _cause_of_frame(data, kind_of)) is not None:
        return cause if format_name not in {"avro", "json_sr"} else None
    if format_name in {"int", "long", "uuid", "json", "avro", "json_sr", "json_connect"} and is_text(data):
        if is_json(data) and data[:1] in b'{["':
            return "it is JSON: use json, with the members of the key as fields"
        return "it is text: use string"
    return None


def is_text(data: bytes) -> bool:
    """Return whether data is text in UTF-8 without control characters other than tabs and line breaks."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return _CONTROLS.search(data) is None


def is_json(data: bytes) -> bool:
    """Return whether data is JSON."""
    try:
        decode_json(data)
    except DecodeError:
        return False
    return True


def is_plain_ascii(data: bytes) -> bool:
    """Return whether data is one or more printable ASCII characters."""
    return _PRINTABLE.fullmatch(data) is not None


def _cause_of_unknown_frame(data: bytes) -> str | None:
    if frame_id(data) is None:
        return None
    return (
        "it begins with 0x00 and a number, as serializers of a schema registry write: if one does, use avro, protobuf "
        "or json_sr, and set schema_registry to that registry"
    )


def _cause_of_frame(data: bytes, kind_of: KindOfSchema) -> str | None:
    number = frame_id(data)
    kind = None if number is None else kind_of(number)
    if kind is None:
        return None
    return f"it begins with 0x00 and {number}, a schema that the registry knows: use {FORMAT_OF_KIND[kind]}"
