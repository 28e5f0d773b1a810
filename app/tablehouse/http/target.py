"""The request target: raw path segments and query parameters, percent-decoded to the exact bytes.

aiohttp's own accessors decode to text and cannot tell `%2F` from `/` or carry bytes that are no UTF-8, so
keys are taken from the raw target. A `+` is a plus in the path and a space in the query, where clients encode
parameters as HTML forms do: they send `%2B` for a plus.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from tablehouse.errors import InvalidParameter

_DIGITS = "0123456789abcdefABCDEF"
#: The values of a query parameter that is true or false.
_FLAGS = {b"": True, b"true": True, b"false": False}
_HEX = {f"{high}{low}".encode(): int(high + low, 16) for high in _DIGITS for low in _DIGITS}


def raw_bytes(text: str) -> bytes:
    """Return the bytes of a part of the request target that aiohttp has as text."""
    return text.encode("utf-8", "surrogateescape")


def percent_decoded(data: bytes) -> bytes:
    """Decode one raw path segment or query value.

    Bytes above ASCII that a client sent unencoded are kept as they are. Raises InvalidParameter for a `%`
    that two hexadecimal digits do not follow.
    """
    if b"%" not in data:
        return data
    first, *rest = data.split(b"%")
    parts = [first]
    for part in rest:
        byte = _HEX.get(part[:2])
        if byte is None:
            raise InvalidParameter(
                "the URL has a '%' that is not followed by two hexadecimal digits: write a literal '%' as %25"
            )
        parts += (bytes((byte,)), part[2:])
    return b"".join(parts)


def without_trailing_slash(raw_path: str) -> str:
    """Return the path that is meant by one that ends with a slash, as those of folders do; the root stays as it is."""
    return raw_path[:-1] if len(raw_path) > 1 and raw_path.endswith("/") else raw_path


def query_parameters(raw: str, allowed: AbstractSet[str]) -> dict[str, bytes]:
    """Decode a raw query string. Only `&` separates parameters; `;` belongs to the value.

    Raises InvalidParameter, naming the parameter, for one that the route does not have or that comes twice.
    """
    parameters: dict[str, bytes] = {}
    for item in raw.replace("+", "%20").split("&") if raw else ():
        if not item:
            continue
        name_text, _, value = item.partition("=")
        name = percent_decoded(raw_bytes(name_text)).decode("utf-8", "replace")
        if name not in allowed:
            known = ", ".join(sorted(allowed)) if allowed else "none"
            raise InvalidParameter(f"unknown query parameter {name!r}; this route knows: {known}", parameter=name)
        if name in parameters:
            raise InvalidParameter(f"the query parameter {name!r} is given twice", parameter=name)
        parameters[name] = percent_decoded(raw_bytes(value))
    return parameters


def flag(parameters: Mapping[str, bytes], name: str) -> bool:
    """Return whether a flag is set; raises InvalidParameter."""
    given = _FLAGS.get(parameters.get(name, b"false"))
    if given is None:
        raise InvalidParameter(f"{name} has to be true or false; without a value it is true", parameter=name)
    return given
