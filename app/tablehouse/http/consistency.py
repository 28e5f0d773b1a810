"""What a caller asks of an answer, as query parameters and as headers, which workers use between them too."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from multidict import CIMultiDictProxy

from tablehouse.catalog.spec import TableSpec
from tablehouse.errors import InvalidParameter
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, ReadMode, TopicPartition
from tablehouse.positions import Position

READ = "read"
MAX_STALENESS_MS = "max_staleness_ms"
MAX_LAG = "max_lag"
MIN_POSITION = "min_position"
TIMEOUT_MS = "timeout_ms"

#: The header of each parameter.
HEADERS: Mapping[str, str] = {
    READ: "Tablehouse-Read",
    MAX_STALENESS_MS: "Tablehouse-Max-Staleness-Ms",
    MAX_LAG: "Tablehouse-Max-Lag",
    MIN_POSITION: "Tablehouse-Min-Position",
    TIMEOUT_MS: "Tablehouse-Timeout-Ms",
}

#: The query parameters of every route that reads a row.
PARAMETERS = frozenset(HEADERS)

#: Characters of the positions that one request gives. Between workers they are a header, which has a limit of its own.
MAX_POSITIONS_LENGTH = 16 * 1024

_MODES = ", ".join(ReadMode)
_WHOLE = re.compile(r"[0-9]{1,15}")
_ENTRY = re.compile(r"(?:([a-zA-Z0-9._-]{1,249})/)?([0-9]{1,9}):(-1|[0-9]{1,18})")


class Asked(NamedTuple):
    """What a caller asked for; wait is for how many seconds a position is waited for, None when it did not say."""

    consistency: Consistency
    wait: float | None


_NOTHING = Asked(DEFAULT_CONSISTENCY, None)


def asked(parameters: Mapping[str, bytes], headers: CIMultiDictProxy[str], table: TableSpec) -> Asked:
    """Read what a caller asks of an answer from a table; a parameter wins over the header of the same meaning.

    Raises InvalidParameter, naming the parameter or header, for a value that cannot be used, a header that comes twice,
    a timeout_ms without a min_position to wait for, and a position in a topic that the table is not made from.
    """
    given = _given(parameters, headers)
    if not given:
        return _NOTHING
    if TIMEOUT_MS in given and MIN_POSITION not in given:
        name = given[TIMEOUT_MS][0]
        raise InvalidParameter(
            f"{name} says how long to wait for {MIN_POSITION}, which is not given: give both, or neither",
            parameter=name,
        )
    wait_ms = _whole(given, TIMEOUT_MS)
    return Asked(
        Consistency(
            mode=_mode(given),
            max_staleness_ms=_whole(given, MAX_STALENESS_MS),
            max_lag=_whole(given, MAX_LAG),
            min_position=_position(given, table),
        ),
        None if wait_ms is None else wait_ms / 1000,
    )


def timeout_of(parameters: Mapping[str, bytes], headers: CIMultiDictProxy[str]) -> float | None:
    """Read for how many seconds a caller wants to wait, None when it does not say; raises InvalidParameter."""
    wait_ms = _whole(_given(parameters, headers), TIMEOUT_MS)
    return None if wait_ms is None else wait_ms / 1000


def asking_headers(consistency: Consistency, wait: float) -> dict[str, str]:
    """Write for another worker what `asked` reads; what is as by default is left out."""
    headers = {}
    if consistency.mode is not ReadMode.PREFER_ACTIVE:
        headers[HEADERS[READ]] = consistency.mode.value
    if consistency.max_staleness_ms is not None:
        headers[HEADERS[MAX_STALENESS_MS]] = str(consistency.max_staleness_ms)
    if consistency.max_lag is not None:
        headers[HEADERS[MAX_LAG]] = str(consistency.max_lag)
    if consistency.min_position is not None:
        headers[HEADERS[MIN_POSITION]] = consistency.min_position.text
        headers[HEADERS[TIMEOUT_MS]] = str(int(wait * 1000))
    return headers


def _given(parameters: Mapping[str, bytes], headers: CIMultiDictProxy[str]) -> dict[str, tuple[str, str]]:
    """Return by parameter what is given, and the name of the parameter or header that gives it."""
    given = {}
    for parameter, header in HEADERS.items():
        if parameter in parameters:
            given[parameter] = (parameter, parameters[parameter].decode("utf-8", "replace"))
        elif header in headers:
            if len(headers.getall(header)) > 1:
                raise InvalidParameter(f"the header {header} is given twice", parameter=header)
            given[parameter] = (header, headers[header].strip())
    return given


def _mode(given: Mapping[str, tuple[str, str]]) -> ReadMode:
    name, text = given.get(READ, (READ, ReadMode.PREFER_ACTIVE))
    try:
        return ReadMode(text)
    except ValueError:
        raise InvalidParameter(f"{name} has to be one of {_MODES}, not {text!r}", parameter=name) from None


def _whole(given: Mapping[str, tuple[str, str]], parameter: str) -> int | None:
    if parameter not in given:
        return None
    name, text = given[parameter]
    if not _WHOLE.fullmatch(text):
        unit = "records" if parameter == MAX_LAG else "milliseconds"
        raise InvalidParameter(f"{name} has to be a whole number of {unit}, not {text!r}", parameter=name)
    return int(text)


def _position(given: Mapping[str, tuple[str, str]], table: TableSpec) -> Position | None:
    if MIN_POSITION not in given:
        return None
    name, text = given[MIN_POSITION]
    if len(text) > MAX_POSITIONS_LENGTH:
        raise InvalidParameter(
            f"{name} has {len(text)} characters, at most {MAX_POSITIONS_LENGTH} are taken: only the position of the "
            "key's own partition counts, so leave the others out",
            parameter=name,
        )
    found = [_ENTRY.fullmatch(entry.strip(" ")) for entry in text.split(",")]
    entries = [
        (_input_name(match[1], int(match[2]), table, name), int(match[3])) for match in found if match is not None
    ]
    if len(entries) != len(found):
        raise InvalidParameter(
            f"{name} has to be partition:offset, as Tablehouse-Position has it, or several with commas between, "
            f"like 2:1207 or 2:1207,5:31, not {text!r}",
            parameter=name,
        )
    return Position.of(entries)


def _input_name(topic: str | None, partition: int, table: TableSpec, parameter: str) -> str:
    """Return the name of an input in the table's positions; the only topic of a table may be given or left out."""
    topics = table.topics
    if topic is None and len(topics) > 1:
        wanted = " or ".join(f"{one}/{partition}:offset" for one in topics)
        raise InvalidParameter(
            f"{parameter} has partition {partition} without a topic, and table {table.name} is made from several: "
            f"give {wanted}",
            parameter=parameter,
            table=table.name,
        )
    if topic is not None and topic not in topics:
        raise InvalidParameter(
            f"{parameter} has a position in topic {topic}, and table {table.name} is made from {', '.join(topics)}",
            parameter=parameter,
            table=table.name,
        )
    return table.input_name(TopicPartition(topic or topics[0], partition))
