"""How questions to another worker, and their results, are written.

Three have a request of their own, the first form that they had: Get (here and InternalRoutes.row), Applied, and
MultiGet (slices.py). All others go as a value of MessagePack to `:ask`, and need no more than their place in _Crossing.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import msgspec

from tablehouse.errors import OwnerUnreachable
from tablehouse.http.freshness import SERVED_BY, SentFreshness, freshness_of
from tablehouse.model import HostInfo
from tablehouse.routing.ports import Answered
from tablehouse.stores.rows import Row
from tablehouse.tasks.questions import Applied, Get, Question
from tablehouse.tasks.ranges import KeyedRow, Range, RangeResult
from tablehouse.tasks.reads import ReadResult

ROWS_PREFIX = "/internal/v1/tables/"
WRITE_CHECK, ASK = ":write-check", ":ask"

VERSION = "Tablehouse-Internal-Version"
ROW_OFFSET = "Tablehouse-Row-Offset"
ROW_TIMESTAMP_MS = "Tablehouse-Row-Timestamp-Ms"

#: Changes when workers with different numbers must not read from each other.
PROTOCOL_VERSION = "1"

Result = TypeVar("Result")

#: The questions that cross as values; each has a tag of its own.
_Crossing = Range


class _RangeResult(msgspec.Struct, frozen=True):
    """A RangeResult as it is sent."""

    rows: Sequence[KeyedRow]
    freshness: SentFreshness
    rest: Range | None = None

    @classmethod
    def of(cls, result: RangeResult) -> Self:
        return cls(result.rows, SentFreshness.of(result.freshness), result.rest)

    def received(self) -> RangeResult:
        return RangeResult(self.rows, self.freshness.received(), self.rest)


_RESULTS: Mapping[type, "msgspec.msgpack.Decoder[_RangeResult]"] = {Range: msgspec.msgpack.Decoder(_RangeResult)}

_questions = msgspec.msgpack.Decoder(_Crossing)
_encode = msgspec.msgpack.Encoder().encode


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


class _AskForm:
    def request(self, table: str, partition: int, question: _Crossing) -> tuple[str, bytes]:
        return f"{ROWS_PREFIX}{table}/{partition}{ASK}", _encode(question)

    def answer(self, host: HostInfo, partition: int, question: _Crossing, got: Received) -> Answered[RangeResult]:
        del host
        result = _RESULTS[type(question)].decode(got.body).received()
        _require_partition(result.freshness.partition, partition)
        return Answered(result, got.headers[SERVED_BY])


_ASK = _AskForm()
_FORMS: Mapping[type, Form] = {Get: _RowForm(), Applied: _WriteCheckForm()}


def form_of(question: Question[Result]) -> Form:
    """Return the form of a question about one partition."""
    return _FORMS.get(type(question), _ASK)


def decode_question(data: bytes) -> _Crossing:
    """Read a question that came as a value; raises ValueError, and RecursionError for what is nested beyond reason."""
    return _questions.decode(data)


def encode_result(result: RangeResult) -> bytes:
    """Encode the result of a question that came as a value."""
    return _encode(_RangeResult.of(result))


def stored_key_text(stored_key: bytes) -> str:
    """Write a stored key as a path segment: base64url without padding, empty for the empty key."""
    return base64.urlsafe_b64encode(stored_key).rstrip(b"=").decode()


def _require_partition(answered: int, asked: int) -> None:
    if answered != asked:
        raise OwnerUnreachable(f"it answered for partition {answered}, not {asked}")
