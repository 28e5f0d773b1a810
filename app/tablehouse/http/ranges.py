"""The query parameters that say which rows of a table are meant."""

import re
from collections.abc import Mapping

from tablehouse.errors import InvalidKey, InvalidParameter, UnorderedKeys
from tablehouse.formats.prefixes import prefix_bounds
from tablehouse.routing.tables import RoutedTable

PREFIX = "prefix"
FROM = "from"
TO = "to"

#: The query parameters of every route about a range of rows.
RANGE_PARAMETERS = frozenset({PREFIX, FROM, TO})

_WHOLE = re.compile(rb"[0-9]{1,15}")


def range_of(table: RoutedTable, parameters: Mapping[str, bytes]) -> tuple[bytes, bytes | None]:
    """Return the stored keys that are meant, first inclusive and end exclusive; an end of None is that of the table.

    Raises UnorderedKeys where a table has no ranges and one is meant, InvalidParameter for a `from` after `to`, and
    what parsing a key raises.
    """
    if RANGE_PARAMETERS & parameters.keys():
        require_order(table)
    start = _key(table, parameters, FROM) if FROM in parameters else b""
    end = _key(table, parameters, TO) if TO in parameters else None
    if end is not None and start > end:
        raise InvalidParameter("from is after to, in the order of the keys", parameter=FROM, table=table.spec.name)
    if PREFIX in parameters:
        try:
            first, above = prefix_bounds(table.keys, table.spec.source.key, parameters[PREFIX])
        except InvalidKey as error:
            raise InvalidKey(error.detail, parameter=PREFIX, table=table.spec.name) from None
        start = max(start, first)
        end = above if end is None or (above is not None and above < end) else end
    # An empty range is one like any other: somebody has to answer for it.
    return start, end if end is None else max(start, end)


def _key(table: RoutedTable, parameters: Mapping[str, bytes], name: str) -> bytes:
    """Return the stored form of the key in a parameter; an InvalidKey names the parameter."""
    try:
        return table.parse(parameters[name]).stored
    except InvalidKey as error:
        raise InvalidKey(error.detail, **{**error.details, "parameter": name}) from None


def require_order(table: RoutedTable) -> None:
    """Raise UnorderedKeys if the rows of a table are not stored in the order of their keys."""
    reason = table.keys.unordered_reason
    if reason is not None:
        raise UnorderedKeys(f"table {table.spec.name} has no ranges of keys: {reason}", table=table.spec.name)


def whole_number(parameters: Mapping[str, bytes], name: str, default: int, most: int) -> int:
    """Return a number from 1 to `most`; raises InvalidParameter."""
    text = parameters.get(name)
    if text is None:
        return default
    number = int(text) if _WHOLE.fullmatch(text) else 0
    if not 1 <= number <= most:
        shown = text[:40].decode("utf-8", "replace")
        raise InvalidParameter(f"{name} has to be a whole number from 1 to {most}, not {shown!r}", parameter=name)
    return number
