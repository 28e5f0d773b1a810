"""How fresh an answer is, as headers: the same ones for callers and between workers."""

from collections.abc import Mapping
from typing import Any

from tablehouse.model import Freshness, Role
from tablehouse.positions import Position

PARTITION = "Tablehouse-Partition"
POSITION = "Tablehouse-Position"
ROLE = "Tablehouse-Role"
LAG_RECORDS = "Tablehouse-Lag-Records"
STALENESS_MS = "Tablehouse-Staleness-Ms"
REJECTED_RECORDS = "Tablehouse-Rejected-Records"
SERVED_BY = "Tablehouse-Served-By"


def freshness_headers(freshness: Freshness, served_by: str) -> dict[str, str]:
    """Render freshness without what is not known, and without a count of rejected records that is 0."""
    headers = {
        PARTITION: str(freshness.partition),
        POSITION: freshness.position.text,
        ROLE: freshness.role.value,
        SERVED_BY: served_by,
    }
    if freshness.lag_records is not None:
        headers[LAG_RECORDS] = str(freshness.lag_records)
    if freshness.staleness_ms is not None:
        headers[STALENESS_MS] = str(freshness.staleness_ms)
    if freshness.rejected_records:
        headers[REJECTED_RECORDS] = str(freshness.rejected_records)
    return headers


def refused_freshness_headers(details: Mapping[str, Any]) -> dict[str, str]:
    """Render the freshness of the copy that refused, from an error's details; nothing when no readable copy did."""
    try:
        role, partition = Role(details["role"]), int(details["partition"])
        position = Position.from_json(partition, details["position"])
        headers = {PARTITION: str(partition), POSITION: position.text, ROLE: role.value}
        for name, header in (("lag_records", LAG_RECORDS), ("staleness_ms", STALENESS_MS)):
            if name in details:
                headers[header] = str(int(details[name]))
    except (KeyError, TypeError, ValueError):
        # Details can come from a peer of another version.
        return {}
    if "served_by" in details:
        headers[SERVED_BY] = details["served_by"]
    return headers


def freshness_of(headers: Mapping[str, str]) -> Freshness:
    """Read freshness back; raises KeyError or ValueError for headers that this project did not write."""
    lag = headers.get(LAG_RECORDS)
    staleness = headers.get(STALENESS_MS)
    return Freshness(
        partition=int(headers[PARTITION]),
        position=Position.parse(headers[POSITION]),
        role=Role(headers[ROLE]),
        lag_records=None if lag is None else int(lag),
        staleness_ms=None if staleness is None else int(staleness),
        rejected_records=int(headers.get(REJECTED_RECORDS, "0")),
    )
