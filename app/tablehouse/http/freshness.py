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
    """Render freshness as headers; see freshness_lines."""
    return headers_of(freshness_lines(freshness, served_by))


def freshness_lines(freshness: Freshness, served_by: str) -> str:
    """Render freshness as the lines of headers, each with its CRLF.

    Without what is not known, and without a count of rejected records that is 0.
    """
    lag, staleness, rejected = freshness.lag_records, freshness.staleness_ms, freshness.rejected_records
    lines = (
        f"{PARTITION}: {freshness.partition}\r\n{POSITION}: {freshness.position.text}\r\n"
        f"{ROLE}: {freshness.role}\r\n{SERVED_BY}: {served_by}\r\n"
    )
    if lag is not None:
        lines += f"{LAG_RECORDS}: {lag}\r\n"
    if staleness is not None:
        lines += f"{STALENESS_MS}: {staleness}\r\n"
    if rejected:
        lines += f"{REJECTED_RECORDS}: {rejected}\r\n"
    return lines


def headers_of(lines: str) -> dict[str, str]:
    """Return the headers whose lines these are."""
    split = (line.partition(": ") for line in lines.split("\r\n") if line)
    return {name: value for name, _, value in split}


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
