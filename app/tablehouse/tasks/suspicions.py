"""Keys that can be decoded in the table's format but are probably of another one.

Four letters are also a 4-byte integer, and an integer with small bytes is also valid UTF-8. So a table with the wrong
format has rows, but under keys that no caller asks for.
"""

from collections.abc import Callable, Sequence

from tablehouse.catalog.spec import KeySpec
from tablehouse.formats.framing import KEY_HEADER, header
from tablehouse.formats.likely_causes import frame_id, is_plain_ascii, is_text
from tablehouse.tasks.log import LogRecord

#: Distinct keys that are checked, each time a worker becomes the owner of a partition.
_KEYS_LOOKED_AT = 20

_NAMED_IN_HEADERS = (
    f"keys whose schema is named in the header {KEY_HEADER}: use key: avro or json_sr, and a new version"
)

_WIDTHS = {4: "int", 8: "long"}


class KeySuspicion:
    """Checks the first keys of a partition; `text` says what they look like, None unless they look wrong."""

    def __init__(self, spec: KeySpec) -> None:
        self._format = spec.format
        self._check = _CHECKS.get(spec.format)
        self._keys: set[bytes] = set()
        self._named_in_headers = False
        self.text: str | None = None

    def look(self, wires: Sequence[bytes], records: Sequence[LogRecord]) -> None:
        """Collect keys, and look at the headers of their records, until there are enough to judge."""
        if self._check is None:
            return
        self._keys.update(wires[:_KEYS_LOOKED_AT])
        first = records[:_KEYS_LOOKED_AT]
        self._named_in_headers |= any(header(record.headers, KEY_HEADER) is not None for record in first)
        if len(self._keys) < _KEYS_LOOKED_AT:
            return
        found = _NAMED_IN_HEADERS if self._named_in_headers else self._check(self._keys)
        self._check = None
        self._keys.clear()
        self.text = None if found is None else f"keys of format {self._format} look like {found}"


def _of_integers(keys: set[bytes]) -> str | None:
    return "text: use key: string, and a new version" if all(map(is_plain_ascii, keys)) else None


def _of_text(keys: set[bytes]) -> str | None:
    if any(map(is_text, keys)):
        return None
    if all(map(frame_id, keys)):
        return "keys that begin with a schema id: use key: avro or json_sr, and a new version"
    widths = {len(key) for key in keys}
    name = _WIDTHS.get(widths.pop()) if len(widths) == 1 else None
    return None if name is None else f"integers: use key: {name}, and a new version"


_CHECKS: dict[str, Callable[[set[bytes]], str | None]] = {"int": _of_integers, "long": _of_integers, "string": _of_text}
