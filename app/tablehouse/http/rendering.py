"""How answers with many rows write keys, values, and the freshness of partitions."""

from collections.abc import Callable

import msgspec

from tablehouse.formats.row_form import key_json
from tablehouse.routing.outcomes import PartitionAnswer
from tablehouse.routing.tables import RoutedTable


def key_rendering(table: RoutedTable) -> Callable[[bytes], bytes]:
    """Return how a stored key is written as JSON; see key_json."""
    return key_json(table.keys, table.spec.source.key)


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
