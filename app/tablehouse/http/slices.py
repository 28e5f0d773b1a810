"""What a worker says of a part of a batch, on its way to another: MessagePack, with errors as problem documents."""

from collections.abc import Mapping, Sequence

import msgspec

from tablehouse.errors import OwnerUnreachable, RequestError
from tablehouse.http.freshness import SentFreshness
from tablehouse.http.problems import document, from_document
from tablehouse.routing.ports import Slice, Wanted
from tablehouse.tasks.reads import SliceResult

CONTENT_TYPE = "application/vnd.msgpack"


class _Error(msgspec.Struct, frozen=True, array_like=True):
    document: bytes
    retry_after: int | None


class _Slice(msgspec.Struct, frozen=True, array_like=True):
    """One of a result, with freshness, and an error."""

    partition: int
    count: int
    error: _Error | None = None
    freshness: SentFreshness | None = None
    payloads: Sequence[bytes | None] = ()
    hit: _Error | None = None
    miss: _Error | None = None


_wanted = msgspec.msgpack.Decoder(list[Wanted])
_slices = msgspec.msgpack.Decoder(list[_Slice])
_encode = msgspec.msgpack.Encoder().encode

encode_wanted = _encode


def decode_wanted(data: bytes) -> Sequence[Wanted]:
    """Read what another worker wants; raises ValueError, and RecursionError for what is nested beyond reason."""
    return _wanted.decode(data)


def encode_slices(slices: Sequence[Slice]) -> bytes:
    """Encode the outcomes of what was wanted."""
    return _encode([_written(part) for part in slices])


def decode_slices(data: bytes, wanted: Sequence[Wanted], known: Mapping[str, type[RequestError]]) -> Sequence[Slice]:
    """Read what a worker says of what was wanted; `known` are the errors that it may give, by code.

    Raises OwnerUnreachable for what no worker would say.
    """
    try:
        slices = [_read(part, known) for part in _slices.decode(data)]
    except (ValueError, RecursionError) as error:
        raise OwnerUnreachable(f"its answer cannot be understood: {error}") from None
    left = {partition: len(keys) for partition, keys in wanted}
    for part in slices:
        left[part.partition] = left.get(part.partition, 0) - part.keys
    if any(count < 0 for count in left.values()) or not slices or slices[0].partition != wanted[0].partition:
        raise OwnerUnreachable("it answered for other keys than it was asked for")
    return slices


def _written(part: Slice) -> _Slice:
    outcome = part.outcome
    if isinstance(outcome, RequestError):
        return _Slice(part.partition, part.keys, error=_written_error(outcome))
    return _Slice(
        part.partition,
        part.keys,
        freshness=SentFreshness.of(outcome.freshness),
        payloads=outcome.payloads,
        hit=None if outcome.hit is None else _written_error(outcome.hit),
        miss=None if outcome.miss is None else _written_error(outcome.miss),
    )


def _written_error(error: RequestError) -> _Error:
    return _Error(msgspec.json.encode(document(error)), error.retry_after)


def _read(part: _Slice, known: Mapping[str, type[RequestError]]) -> Slice:
    if part.count < 1:
        raise ValueError("a slice without keys")
    if part.freshness is None:
        if part.error is None:
            raise ValueError("a slice without freshness or error")
        return Slice(part.partition, part.count, _read_error(part.error, known))
    if len(part.payloads) != part.count or part.freshness.partition != part.partition:
        raise ValueError("a slice of other keys than it says")
    result = SliceResult(
        part.payloads,
        part.freshness.received(),
        hit=None if part.hit is None else _read_error(part.hit, known),
        miss=None if part.miss is None else _read_error(part.miss, known),
    )
    return Slice(part.partition, part.count, result)


def _read_error(error: _Error, known: Mapping[str, type[RequestError]]) -> RequestError:
    retry_after = None if error.retry_after is None else str(error.retry_after)
    read = from_document(error.document, retry_after, known)
    return read or OwnerUnreachable("it refused for a reason that this worker does not know")
