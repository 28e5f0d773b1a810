"""Schemas of Protobuf that are registered as descriptors, as Confluent's client of Python does it."""

import json
from base64 import b64encode
from pathlib import Path

import pytest

from app.formats.errors import DecodeError
from app.formats.protobuf import ProtobufReader
from app.formats.schemas import Reference, Schema
from tests.support.protobuf import message_class
from tests.support.schemas import MemorySchemas, framed

ENGINE = 'syntax = "proto3"; message Engine { string maker = 1; }'
PLANE = """
syntax = "proto3";
import "engine.proto";
import "google/protobuf/timestamp.proto";
message Plane { Engine engine = 1; google.protobuf.Timestamp seen = 2; }
"""


def descriptors(folder: Path) -> tuple[bytes, str, str]:
    """Return a Plane in Protobuf, and the descriptors of both files in base64."""
    (folder / "engine.proto").write_text(ENGINE, "utf-8")
    kind = message_class(folder, PLANE, "Plane")
    value = kind(engine={"maker": "CFM"})
    value.seen.FromJsonString("2013-01-01T05:17:00Z")
    file = kind.DESCRIPTOR.file
    texts = [b64encode(one.serialized_pb).decode() for one in (file, file.dependencies[0])]
    return value.SerializeToString(), texts[0], texts[1]


async def reader(*schemas: Schema) -> ProtobufReader:
    registry = MemorySchemas(*schemas)
    for schema in schemas:
        await registry.fetch(schema.id)
    return ProtobufReader(registry)


async def test_a_descriptor_is_used_with_all_that_it_imports(tmp_path: Path) -> None:
    content, plane, engine = descriptors(tmp_path)
    used = Reference("engine.proto", "engine", 1, Schema(1, "PROTOBUF", engine))
    read = await reader(Schema(2, "PROTOBUF", plane, (used,)))
    assert json.loads(read(framed(2, b"\0" + content))) == {
        "engine": {"maker": "CFM"},
        "seen": "2013-01-01T05:17:00Z",
    }


async def test_what_a_descriptor_lacks_is_named(tmp_path: Path) -> None:
    content, plane, _ = descriptors(tmp_path)
    as_text = Reference("engine.proto", "engine", 1, Schema(1, "PROTOBUF", ENGINE))
    read = await reader(Schema(2, "PROTOBUF", plane), Schema(3, "PROTOBUF", plane, (as_text,)))
    with pytest.raises(DecodeError, match=r"schema 2 .*engine\.proto"):
        read(framed(2, b"\0" + content))
    with pytest.raises(DecodeError, match=r"schema 3 is a descriptor, and engine\.proto, .* is a text"):
        read(framed(3, b"\0" + content))
