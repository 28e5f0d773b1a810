"""How the rows of a table look to callers: the value of a key, and whether values are JSON."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tablehouse.catalog.spec import STRUCTURED_KEYS, KeySpec
from tablehouse.formats.keys import KeyFormat


class RowForm(NamedTuple):
    """How the rows of a table are read by expressions.

    `key` returns the value of a stored key as answers show it: a text, or for keys of JSON what their JSON means. It
    raises StoredKeyError and KeySchemaUnknown. `is_json` says whether payloads are JSON.
    """

    key: Callable[[bytes], object]
    is_json: bool


#: The form of tables with keys of format string and values of JSON.
TEXT_AND_JSON = RowForm(bytes.decode, is_json=True)


def row_form(keys: KeyFormat, spec: KeySpec, content_type: str) -> RowForm:
    """Return the form of rows with a format of keys and a media type."""
    is_json = is_json_type(content_type)
    if _has_text(spec):
        return RowForm(lambda stored: keys.text(stored).decode(), is_json)
    as_json = key_json(keys, spec)
    return RowForm(lambda stored: msgspec.json.decode(as_json(stored)), is_json)


def is_json_type(content_type: str) -> bool:
    """Return whether payloads of a media type are JSON."""
    return content_type.partition(";")[0] == "application/json"


def key_json(keys: KeyFormat, spec: KeySpec) -> Callable[[bytes], bytes]:
    """Return how a stored key is written as JSON, so that a batch takes it.

    That is the text that a URL has, as a string, and the value itself of a key that is JSON, unless it is a string. The
    function raises StoredKeyError and KeySchemaUnknown.
    """
    if _has_text(spec):
        return lambda stored: _as_string(keys.text(stored))
    if spec.fields and not spec.bare:
        return keys.text

    def scalar(stored: bytes) -> bytes:
        text = keys.text(stored)
        return _as_string(text) if text.startswith(b'"') else text

    return scalar


def _has_text(spec: KeySpec) -> bool:
    """Return whether keys are shown as the texts of URLs."""
    return spec.format not in STRUCTURED_KEYS or (spec.format == "avro" and (spec.bare or not spec.fields))


def _as_string(text: bytes) -> bytes:
    return msgspec.json.encode(text.decode())
