"""From a record's key to its text in a URL, before percent-encoding."""

from base64 import urlsafe_b64encode

import msgspec

from tablehouse.catalog.spec import KeySpec
from tablehouse.formats.avro_key_types import text_of
from tablehouse.formats.connect_json import unwrap
from tablehouse.formats.connect_keys import connect_key
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import Headers
from tablehouse.formats.json_text import decode_json
from tablehouse.formats.key_frames import key_frame
from tablehouse.formats.keyed import avro_key
from tablehouse.formats.members import Members
from tablehouse.formats.schemas import Schemas


def key_text(spec: KeySpec, wire: bytes, headers: Headers, schemas: Schemas) -> str:
    """Return the text under which a URL asks for a key; raises DecodeError and SchemaNeeded.

    Only for keys that can be stored, see KeyFormat.
    """
    match spec.format:
        case "string" | "uuid":
            text = wire.decode()
            return text if spec.format == "string" else text.lower()
        case "bytes":
            return _base64(wire)
        case "int" | "long":
            return str(int.from_bytes(wire, "big", signed=True))
        case "avro":
            shown = avro_key(spec, wire, key_frame(wire, headers), schemas)
            if spec.bare or not spec.fields:
                return text_of(shown[0]).decode()
            return msgspec.json.encode(dict(zip(spec.fields, shown, strict=True))).decode()
    return _json(spec, _content(spec, wire, headers))


def _content(spec: KeySpec, wire: bytes, headers: Headers) -> bytes:
    """Return the JSON of a key."""
    if spec.format == "json_connect":
        wrapped = unwrap(wire)
        if wrapped is None:
            raise DecodeError("it is not an object of schema and payload")
        schema, payload = wrapped
        value = decode_json(payload)
        shown = connect_key(schema, spec.fields).show(value)
        return payload if shown is value else msgspec.json.encode(shown)
    return wire[key_frame(wire, headers).content :] if spec.format == "json_sr" else wire


def _json(spec: KeySpec, text: bytes) -> str:
    return (Members(spec.fields)(text)[spec.fields[0]] if spec.bare else text).decode()


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
