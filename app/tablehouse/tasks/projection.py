"""Parts of rows: the members of their JSON that a caller wants, byte for byte."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import msgspec

from tablehouse.formats.selected import raw_members, selected

#: The names that lead to a member: those of the objects around it, from the outside, and its own.
Path = tuple[str, ...]

#: Projections that are kept ready.
PROJECTIONS_KEPT = 64

_NOTHING = b"{}"


@lru_cache(maxsize=PROJECTIONS_KEPT)
def projection(paths: tuple[Path, ...]) -> Callable[[bytes], bytes]:
    """Return a function that returns an object with some members of a JSON text, nested as they are there.

    They are in the order of the paths, and their texts are unchanged. Missing members are left out, and objects of
    which none was found. What is not an object has no members.
    """
    project = _part(paths, selected((path[0] for path in paths), msgspec.Raw))

    def whole(text: bytes) -> bytes:
        return project(text) or _NOTHING

    return whole


def _part(paths: Sequence[Path], read: Callable[[bytes], Mapping[str, msgspec.Raw]]) -> Callable[[bytes], bytes | None]:
    """Return the function for an object that `read` takes apart; it returns None if it finds nothing."""
    below: dict[str, list[Path]] = {}
    for path in paths:
        below.setdefault(path[0], []).append(path[1:])
    # A path that ends here is the whole member, whatever other paths lead into it. Objects in rows are small, and
    # taking all of them apart needs no type of its own.
    inner = {name: _part(rest, raw_members) for name, rest in below.items() if () not in rest}
    members = [(name, msgspec.json.encode(name) + b":", inner.get(name)) for name in below]

    def project(text: bytes) -> bytes | None:
        found = read(text)
        parts: list[bytes] = []
        for name, label, part in members:
            if name in found:
                raw = bytes(found[name])
                value = raw if part is None else part(raw)
                if value is not None:
                    parts.append(label + value)
        return b"{" + b",".join(parts) + b"}" if parts else None

    return project
