"""Errors as values, the members of RFC 9457 problem documents: on their way to a caller, or between workers."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tablehouse.errors import (
    DeadlineExceeded,
    Draining,
    ExpressionFailed,
    InternalError,
    InvalidExpression,
    KeySchemaUnknown,
    MisplacedKeys,
    NotOwner,
    Overloaded,
    OwnerUnreachable,
    PartitionRestoring,
    PayloadTooLarge,
    PositionNotReached,
    PreconditionFailed,
    RequestError,
    SourceUnavailable,
    TooStale,
    WriteRefused,
)
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_with

#: `type` is this and the code: a name, which needs no page on the web.
TYPE_PREFIX = "urn:tablehouse:problem:"

#: What a peer may answer about its own task. Any other error of its would say nothing about the caller's
#: question.
PASSED_ON: Mapping[str, type[RequestError]] = {
    kind.code: kind
    for kind in (
        NotOwner,
        PartitionRestoring,
        TooStale,
        PositionNotReached,
        MisplacedKeys,
        KeySchemaUnknown,
        InvalidExpression,
        ExpressionFailed,
        WriteRefused,
        Draining,
        Overloaded,
        DeadlineExceeded,
        InternalError,
        PayloadTooLarge,
        PreconditionFailed,
        SourceUnavailable,
    )
}

_SECONDS = re.compile(r"[0-9]{1,9}")
_STANDARD = frozenset({"type", "title", "status", "detail", "code", "retryable"})

_documents: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class ErrorValue(msgspec.Struct, frozen=True, array_like=True):
    """A refusal on its way to another worker: its problem document, and retry_after in seconds."""

    document: bytes
    retry_after: int | None


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


def from_document(body: bytes, retry_after: str | None) -> RequestError | None:
    """Read a peer's problem document back into its error; None unless it is one of PASSED_ON."""
    try:
        members = decode_with(_documents, body)
    except DecodeError:
        return None
    kind = PASSED_ON.get(str(members.get("code")))
    if kind is None:
        return None
    seconds = int(retry_after) if retry_after and _SECONDS.fullmatch(retry_after) else None
    details = {name: value for name, value in members.items() if name not in {*_STANDARD, "retry_after"}}
    return kind(str(members.get("detail", kind.title)), retry_after=seconds, **details)


def value_of(error: RequestError) -> ErrorValue:
    """Return an error as another worker reads it."""
    return ErrorValue(msgspec.json.encode(document(error)), error.retry_after)


def error_of(value: ErrorValue) -> RequestError:
    """Read the error that another worker refused with; OwnerUnreachable for one that no worker would pass on."""
    retry_after = None if value.retry_after is None else str(value.retry_after)
    read = from_document(value.document, retry_after)
    return read or OwnerUnreachable("it refused for a reason that this worker does not know")
