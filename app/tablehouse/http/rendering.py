"""How answers with many rows write keys, values, and the freshness of partitions."""

from collections.abc import Callable

import msgspec

from tablehouse.catalog.spec import STRUCTURED_KEYS
from tablehouse.routing.outcomes import PartitionAnswer
from tablehouse.routing.tables import RoutedTable


def key_rendering(table: RoutedTable) -> Callable[[bytes], bytes]:
    """Return how a stored key is written as JSON, so that a batch takes it.

    That is the text that a URL has, as a string, and the value itself of a key that is JSON, unless it is a string. The
    function raises StoredKeyError and KeySchemaUnknown.
    """
    keys, spec = table.keys, table.spec.source.key
    if spec.format not in STRUCTURED_KEYS or (spec.format == "avro" and (spec.bare or not spec.fields)):
        return lambda stored: _as_string(keys.text(stored))
    if spec.fields and not spec.bare:
        return keys.text

    def scalar(stored: bytes) -> bytes:
        text = keys.text(stored)
        return _as_string(text) if text.startswith(b'"') else text

    return scalar


def value_rendering(table: RoutedTable) -> Callable[[bytes], bytes]:
    """Return how a payload is written as JSON."""
    match table.content_type.partition(";")[0]:
        case "application/json":
            return _as_it_is
        case "text/plain":
            return _as_string
    return _as_base64


def partition_member(number: int, answer: PartitionAnswer) -> dict[str, object]:
    """Return the freshness of what was read of a partition."""
    freshness = answer.freshness
    return {
        "partition": number,
        "position": freshness.position.text,
        "role": freshness.role.value,
        "lag_records": freshness.lag_records,
        "staleness_ms": freshness.staleness_ms,
        "rejected_records": freshness.rejected_records,
        "served_by": answer.served_by,
    }


def _as_it_is(payload: bytes) -> bytes:
    return payload


def _as_string(payload: bytes) -> bytes:
    return msgspec.json.encode(payload.decode())


def _as_base64(payload: bytes) -> bytes:
    return msgspec.json.encode(payload)
