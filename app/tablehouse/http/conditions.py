"""Request headers that choose between answers, and conditions: Accept, If-Match, If-None-Match (RFC 9110)."""

import re
from collections.abc import Iterator, Sequence

from tablehouse.errors import InvalidParameter
from tablehouse.http.content_coding import identity_tag
from tablehouse.routing.conditional_writes import Precondition

_ENTITY_TAG = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
_ENTITY_TAGS = re.compile(rf"(?:{_ENTITY_TAG.pattern})+")


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


def known_tag(if_none_match: str | None, etag: str) -> str | None:
    """Return which entity tag (a quoted string) of a row If-None-Match names, that of the row as it is or in gzip.

    None when it names neither: the caller does not have the row.
    """
    if if_none_match is None:
        return None
    if if_none_match.strip() == "*":
        return etag
    return next((tag for tag in entity_tags(if_none_match) if identity_tag(tag) == etag), None)


def entity_tags(listed: str) -> Iterator[str]:
    """Go through the entity tags of a list, weak or not, up to what is none."""
    position = 0
    while match := _ENTITY_TAG.match(listed, position):
        yield match[2]
        position = match.end()
        if position == len(listed):
            return


def precondition_of(if_match: str | None, if_none_match: str | None) -> Precondition | None:
    """Return what the headers of a write want of the row that is there; None without them. Raises InvalidParameter."""
    if if_match is None and if_none_match is None:
        return None
    if if_none_match is not None and if_none_match.strip() != "*":
        raise InvalidParameter(
            "If-None-Match of a write has to be *: write only if there is no row", parameter="If-None-Match"
        )
    exists = None if if_none_match is None else False
    if if_match is None:
        return Precondition(exists=exists)
    if if_match.strip() == "*":
        return Precondition(exists=True) if exists is None else Precondition(tags=())
    if not _ENTITY_TAGS.fullmatch(if_match):
        raise InvalidParameter(
            "If-Match has to be *, or entity tags as ETag has them, in quotes and with commas between",
            parameter="If-Match",
        )
    # A weak tag matches nothing here (RFC 9110, section 13.1.1).
    strong = tuple(match[2] for match in _ENTITY_TAG.finditer(if_match) if not match[1])
    return Precondition(tags=strong, exists=exists)
