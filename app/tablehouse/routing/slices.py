"""What a worker says of a part of a batch, on its way to another: MessagePack, with errors as problem documents."""

from collections.abc import Sequence

import msgspec

from tablehouse.errors import OwnerUnreachable, RequestError
from tablehouse.model import Freshness, Role
from tablehouse.positions import Position
from tablehouse.routing.error_values import ErrorValue, error_of, value_of
from tablehouse.routing.ports import Slice, Wanted
from tablehouse.tasks.reads import SliceResult

CONTENT_TYPE = "application/vnd.msgpack"


class _Label(msgspec.Struct, frozen=True):
    """Freshness with the names of its members, as workers have written it from the first version on.

    The position has its form in JSON (Position.in_json).
    """

    partition: int
    position: int | str
    role: Role
    lag_records: int | None
    staleness_ms: int | None
    rejected_records: int = 0


class _Slice(msgspec.Struct, frozen=True, array_like=True):
    """One of a result, with freshness, and an error."""

    partition: int
    count: int
    error: ErrorValue | None = None
    freshness: _Label | None = None
    payloads: Sequence[bytes | None] = ()
    hit: ErrorValue | None = None
    miss: ErrorValue | None = None


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


def decode_slices(data: bytes, wanted: Sequence[Wanted]) -> Sequence[Slice]:
    """Read what a worker says of what was wanted; raises OwnerUnreachable for what no worker would say."""
    try:
        slices = [_read(part) for part in _slices.decode(data)]
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
        return _Slice(part.partition, part.keys, error=value_of(outcome))
    return _Slice(
        part.partition,
        part.keys,
        freshness=_labelled(outcome.freshness),
        payloads=outcome.payloads,
        hit=None if outcome.hit is None else value_of(outcome.hit),
        miss=None if outcome.miss is None else value_of(outcome.miss),
    )


def _read(part: _Slice) -> Slice:
    if part.count < 1:
        raise ValueError("a slice without keys")
    if part.freshness is None:
        if part.error is None:
            raise ValueError("a slice without freshness or error")
        return Slice(part.partition, part.count, error_of(part.error))
    if len(part.payloads) != part.count or part.freshness.partition != part.partition:
        raise ValueError("a slice of other keys than it says")
    result = SliceResult(
        part.payloads,
        _freshness_of(part.freshness),
        hit=None if part.hit is None else error_of(part.hit),
        miss=None if part.miss is None else error_of(part.miss),
    )
    return Slice(part.partition, part.count, result)


def _labelled(freshness: Freshness) -> _Label:
    return _Label(
        freshness.partition,
        freshness.position.in_json(freshness.partition),
        freshness.role,
        freshness.lag_records,
        freshness.staleness_ms,
        freshness.rejected_records,
    )


def _freshness_of(label: _Label) -> Freshness:
    return Freshness(
        label.partition,
        Position.from_json(label.partition, label.position),
        label.role,
        label.lag_records,
        label.staleness_ms,
        label.rejected_records,
    )
