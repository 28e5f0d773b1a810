"""Errors as RFC 9457 problem documents."""

import msgspec
from aiohttp import web

from tablehouse.errors import PreconditionFailed, RequestError, Unauthenticated
from tablehouse.http.freshness import refused_freshness_headers
from tablehouse.http.proofs import PROOF
from tablehouse.routing.error_values import document

CONTENT_TYPE = "application/problem+json"


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
