"""The query parameters that say which rows of a range are wanted, and which of their members."""

from collections.abc import Mapping

from tablehouse.errors import InvalidExpression, InvalidParameter
from tablehouse.formats.row_form import is_json_type
from tablehouse.http.target import percent_decoded
from tablehouse.routing.tables import RoutedTable
from tablehouse.tasks.filters import WHERE, prepared
from tablehouse.tasks.projection import Path
from tablehouse.turns import Turns

FIELDS = "fields"

#: Members that a request may ask for, and names in the path of one.
MAX_FIELDS = 100
MAX_NAMES = 20


async def where_of(parameters: Mapping[str, bytes], turns: Turns) -> str | None:
    """Return the text of the condition, None without one; raises InvalidExpression."""
    given = parameters.get(WHERE)
    if given is None:
        return None
    try:
        text = given.decode()
    except UnicodeDecodeError:
        raise InvalidExpression(f"{WHERE} is not valid UTF-8", parameter=WHERE) from None
    await turns.finish(prepared(text))
    return text


def fields_of(table: RoutedTable, parameters: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Return the paths of the members that are wanted, none for whole rows; raises InvalidParameter."""
    given = parameters.get(FIELDS)
    if given is None:
        return ()
    if not is_json_type(table.content_type):
        raise _invalid(f"the values of table {table.spec.name} are not JSON, so they have no members", table)
    texts = [text.strip(b" ") for text in given.split(b",")]
    if len(texts) > MAX_FIELDS:
        raise _invalid(f"{FIELDS} has {len(texts)} members, at most {MAX_FIELDS} are allowed", table)
    return tuple(dict.fromkeys(_path(text, table) for text in texts))


def _path(text: bytes, table: RoutedTable) -> Path:
    names = text.split(b".")
    if len(names) > MAX_NAMES:
        raise _invalid(f"a member of {FIELDS} has {len(names)} names, at most {MAX_NAMES} are allowed", table)
    if not all(names):
        raise _invalid(f"{FIELDS} has an empty name: members are separated by commas, names in a path by dots", table)
    if text == b"*" or text.startswith(b"$"):
        raise _invalid(
            f"{text.decode('utf-8', 'replace')} is no member of rows: leave {FIELDS} out for whole rows, and "
            "percent-encode the first character of a member that has this name",
            table,
        )
    try:
        return tuple(percent_decoded(name).decode() for name in names)
    except UnicodeDecodeError:
        raise _invalid(f"{FIELDS} is not valid UTF-8", table) from None


def _invalid(detail: str, table: RoutedTable) -> InvalidParameter:
    return InvalidParameter(detail, parameter=FIELDS, table=table.spec.name)
