"""What a caller asks of an answer, as query parameters and as headers, which workers use between them too."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from multidict import CIMultiDictProxy

from tablehouse.errors import InvalidParameter
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, ReadMode

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
_TOKEN = re.compile(r"([0-9]{1,9}):(-1|[0-9]{1,18})")


class Asked(NamedTuple):
    """What a caller asked for; wait is for how many seconds a position is waited for, None when it did not say."""

    consistency: Consistency
    wait: float | None


_NOTHING = Asked(DEFAULT_CONSISTENCY, None)


def asked(parameters: Mapping[str, bytes], headers: CIMultiDictProxy[str]) -> Asked:
    """Read what a caller asks of an answer; a parameter wins over the header of the same meaning.

    Raises InvalidParameter, naming the parameter or header, for a value that cannot be used, a header that comes twice,
    and a timeout_ms without a min_position to wait for.
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
            min_positions=_positions(given),
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
    if consistency.min_positions:
        headers[HEADERS[MIN_POSITION]] = ",".join(f"{number}:{offset}" for number, offset in consistency.min_positions)
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


def _positions(given: Mapping[str, tuple[str, str]]) -> tuple[tuple[int, int], ...]:
    if MIN_POSITION not in given:
        return ()
    name, text = given[MIN_POSITION]
    if len(text) > MAX_POSITIONS_LENGTH:
        raise InvalidParameter(
            f"{name} has {len(text)} characters, at most {MAX_POSITIONS_LENGTH} are taken: only the position of the "
            "key's own partition counts, so leave the others out",
            parameter=name,
        )
    tokens = [_TOKEN.fullmatch(token.strip(" ")) for token in text.split(",")]
    positions = tuple((int(token[1]), int(token[2])) for token in tokens if token is not None)
    if len(positions) != len(tokens):
        raise InvalidParameter(
            f"{name} has to be partition:offset, as Tablehouse-Position has it, or several with commas between, "
            f"like 2:1207 or 2:1207,5:31, not {text!r}",
            parameter=name,
        )
    return positions
