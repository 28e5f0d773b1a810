"""Errors as RFC 9457 problem documents."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from tablehouse.errors import PreconditionFailed, RequestError, Unauthenticated
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_with
from tablehouse.http.freshness import refused_freshness_headers
from tablehouse.http.proofs import PROOF

CONTENT_TYPE = "application/problem+json"

#: `type` is this and the code: a name, which needs no page on the web.
TYPE_PREFIX = "urn:tablehouse:problem:"

_SECONDS = re.compile(r"[0-9]{1,9}")
_STANDARD = frozenset({"type", "title", "status", "detail", "code", "retryable"})

_documents: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


def problem(error: RequestError) -> web.Response:
    """Render an error; its details become members of the document in addition to the standard ones.

    When a copy that can be read refused, its freshness is in the headers as that of an answer would be.
    """
    headers = {
        "Content-Type": CONTENT_TYPE,
        "Cache-Control": "no-cache",
    }
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if "allow" in error.details:
        headers["Allow"] = ", ".join(error.details["allow"])
    if isinstance(error, PreconditionFailed) and "etag" in error.details:
        headers["ETag"] = error.details["etag"]
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = PROOF
    headers |= refused_freshness_headers(error.details)
    return web.Response(status=error.status, body=msgspec.json.encode(document(error)), headers=headers)


def document(error: RequestError) -> dict[str, Any]:
    """Make the members of an error's problem document."""
    return {
        "type": TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "retryable": error.retryable,
        **{name: value for name, value in error.details.items() if name not in _STANDARD},
    }


def from_document(body: bytes, retry_after: str | None, known: Mapping[str, type[RequestError]]) -> RequestError | None:
    """Read a peer's problem document back into its error; None when `known`, by code, does not have it."""
    try:
        members = decode_with(_documents, body)
    except DecodeError:
        return None
    kind = known.get(str(members.get("code")))
    if kind is None:
        return None
    seconds = int(retry_after) if retry_after and _SECONDS.fullmatch(retry_after) else None
    details = {name: value for name, value in members.items() if name not in {*_STANDARD, "retry_after"}}
    return kind(str(members.get("detail", kind.title)), retry_after=seconds, **details)
