"""Request headers that choose between answers: Accept and If-None-Match (RFC 9110)."""

import re
from collections.abc import Sequence

_ENTITY_TAG = re.compile(r'\s*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')


def accepts(accept: str | None, content_type: str) -> bool:
    """Whether a caller takes a media type; parameters other than q are not compared."""
    return _preference(accept, content_type) > 0


def preferred(accept: str | None, content_types: Sequence[str]) -> str | None:
    """Return the media type that a caller likes best, of several the first; None when it takes none of them."""
    best = max(content_types, key=lambda content_type: _preference(accept, content_type))
    return best if accepts(accept, best) else None


def _preference(accept: str | None, content_type: str) -> float:
    """Return how much a caller likes a media type, 0 for not at all.

    Of the ranges that match, the most specific one decides. A missing or blank header takes everything.
    """
    if accept is None or accept == "*/*" or not accept.strip():
        return 1.0
    media_type = content_type.partition(";")[0]
    ranges = {"*/*": 0, media_type.partition("/")[0] + "/*": 1, media_type: 2}
    best, liked = -1, 0.0
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        rank = ranges.get(name, -1)
        if rank > best:
            best, liked = rank, _quality(parameters)
    return liked


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def none_match(if_none_match: str | None, etag: str) -> bool:
    """Whether If-None-Match names the entity tag (a quoted string): the caller has the row already."""
    if if_none_match is None:
        return False
    if if_none_match in {etag, "*"}:
        return True
    position = 0
    while match := _ENTITY_TAG.match(if_none_match, position):
        if match[1] == etag:
            return True
        position = match.end()
        if position == len(if_none_match):
            break
    return False
