"""The stored keys that begin as a caller says."""

from tablehouse.catalog.spec import KeySpec
from tablehouse.errors import InvalidKey
from tablehouse.formats.key_members import KeyMembers, stored_scalars
from tablehouse.formats.keys import KeyFormat

#: Above the first byte of every scalar (ordered.py). Only scalars follow scalars, so no key with other leading members
#: is below it, like one whose string goes on with a zero byte.
_ABOVE_SCALARS = b"\x06"


def prefix_bounds(keys: KeyFormat, spec: KeySpec, text: bytes) -> tuple[bytes, bytes | None]:
    """Return the stored keys, first inclusive and end exclusive, of all keys with a prefix; an end of None is none.

    `text` is the beginning of keys of format string or bytes, as in a URL, and a JSON array of the leading members for
    formats of JSON. Raises InvalidKey, which says why, for a text that is none and for other formats.
    """
    match spec.format:
        case "string" | "bytes":
            start = keys.parse(text).stored
            return start, _after(start)
        case "json" | "json_sr" | "json_connect":
            start = stored_scalars(KeyMembers(spec).of_prefix(text))
            return start, start + _ABOVE_SCALARS
    raise InvalidKey(f"Keys of format {spec.format} have no prefix: use from and to.")


def _after(prefix: bytes) -> bytes | None:
    """Return the first bytes above all that begin with a prefix."""
    below = prefix.rstrip(b"\xff")
    return below[:-1] + bytes((below[-1] + 1,)) if below else None
