"""How questions to another worker, and their results, are written.

So workers of versions before links are asked, which know no other questions: Get (here and InternalRoutes.row),
Applied, and MultiGet (routing/slices.py).
"""

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from tablehouse.errors import OwnerUnreachable
from tablehouse.http.freshness import SERVED_BY, freshness_of
from tablehouse.model import HostInfo
from tablehouse.routing.ports import Answered
from tablehouse.stores.rows import Row
from tablehouse.tasks.questions import Applied, Get, Question
from tablehouse.tasks.reads import ReadResult

ROWS_PREFIX = "/internal/v1/tables/"
WRITE_CHECK = ":write-check"

VERSION = "Tablehouse-Internal-Version"
ROW_OFFSET = "Tablehouse-Row-Offset"
ROW_TIMESTAMP_MS = "Tablehouse-Row-Timestamp-Ms"

#: Changes when workers with different numbers must not read from each other.
PROTOCOL_VERSION = "1"

Result = TypeVar("Result")


class Received(NamedTuple):
    """An answer of another worker."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Form(Protocol):
    """How one kind of question is asked over HTTP."""

    def request(self, table: str, partition: int, question: Any) -> tuple[str, bytes | None]:
        """Return the path to ask, and the content of a POST; None for a GET."""

    def answer(self, host: HostInfo, partition: int, question: Any, got: Received) -> Answered[Any]:
        """Read an answer of status 200 or 204; raises KeyError, ValueError or OwnerUnreachable when it is none."""


class _RowForm:
    def request(self, table: str, partition: int, question: Get) -> tuple[str, None]:
        return f"{ROWS_PREFIX}{table}/{partition}/{stored_key_text(question.stored_key)}", None

    def answer(self, host: HostInfo, partition: int, question: Get, got: Received) -> Answered[ReadResult]:
        del host, question
        headers = got.headers
        freshness = freshness_of(headers)
        _require_partition(freshness.partition, partition)
        if got.status == 204:  # noqa: PLR2004
            deleted_ms = int(headers[ROW_TIMESTAMP_MS]) if ROW_TIMESTAMP_MS in headers else None
            return Answered(ReadResult(None, freshness, deleted_ms), headers[SERVED_BY])
        row = Row(got.body, int(headers[ROW_TIMESTAMP_MS]), int(headers[ROW_OFFSET]))
        return Answered(ReadResult(row, freshness), headers[SERVED_BY])


class _WriteCheckForm:
    def request(self, table: str, partition: int, question: Applied) -> tuple[str, None]:
        del question
        return f"{ROWS_PREFIX}{table}/{partition}{WRITE_CHECK}", None

    def answer(self, host: HostInfo, partition: int, question: Applied, got: Received) -> Answered[None]:
        del partition, question
        if got.status != 204:  # noqa: PLR2004
            raise ValueError(f"status {got.status}")
        return Answered(None, host.worker_id)


_FORMS: Mapping[type, Form] = {Get: _RowForm(), Applied: _WriteCheckForm()}


def form_of(question: Question[Result]) -> Form:
    """Return the form of a question about one partition; raises OwnerUnreachable for one that has none."""
    form = _FORMS.get(type(question))
    if form is None:
        raise OwnerUnreachable(f"it knows no links, and so no questions of kind {type(question).__name__}")
    return form


def stored_key_text(stored_key: bytes) -> str:
    """Write a stored key as a path segment: base64url without padding, empty for the empty key."""
    return base64.urlsafe_b64encode(stored_key).rstrip(b"=").decode()


def _require_partition(answered: int, asked: int) -> None:
    if answered != asked:
        raise OwnerUnreachable(f"it answered for partition {answered}, not {asked}")
