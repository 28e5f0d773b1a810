"""The records of a changelog that are not rows: positions and claims, and the checkpoint that a store keeps.

All are msgpack maps, so most members can be added without breaking older readers; otherwise `v` changes. Every record,
including rows, has its epoch in the header EPOCH_HEADER.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from tablehouse.model import NO_EPOCH, Epoch, TopicPartition
from tablehouse.tasks.doubts import Misplaced
from tablehouse.tasks.log import LogRecord

#: Reserved keys. Row keys begin with 0x01, so they can never meet these.
POSITION_KEY = b"\x00position"
CLAIM_KEY = b"\x00claim"

EPOCH_HEADER = "e"
_EPOCH = struct.Struct(">HH")

#: The version of a record unless stated otherwise.
RECORDS_VERSION = 1

#: The version of a position in several inputs, and of a checkpoint with one.
SEVERAL_INPUTS_VERSION = 2


class MalformedRecord(Exception):
    """A changelog record or a checkpoint that this version cannot read."""


class NewerRecord(MalformedRecord):
    """A record of a later version of the format, which a newer worker can read."""


class Anchor(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last source record applied, used to recognize a source topic that was created again."""

    offset: int
    timestamp: int
    digest: bytes


class InputSpan(NamedTuple):
    """What a position says of one input: offsets `first` to `last` (inclusive) are applied with it."""

    first: int
    last: int
    anchor: Anchor | None = None


class OtherInput(msgspec.Struct, frozen=True, omit_defaults=True, rename={"last": "to"}):
    """An input that a batch is not of, and how far it had been applied before."""

    input: TopicPartition
    last: int
    anchor: Anchor | None = None


class PositionRecord(msgspec.Struct, frozen=True, omit_defaults=True, rename={"first": "from", "last": "to"}):
    """The last record of every lane batch: source offsets `first` to `last` (inclusive) are applied with it.

    It is the whole position of a task: compaction leaves no other. That of a task with one input does not name it. With
    several, `input` is the one that the batch is of, and `others` are those of which anything was fed before.

    `first` is always the position before plus one; `last` is `first` - 1 in a record that only keeps an idle
    partition's producer epoch alive. `stream_time` is the highest source timestamp so far, in milliseconds, -1 before
    the first. `misplaced` is the first record known, in any partition of the table, that the partitioner would have put
    into another one. `rejected` is the number of source records of the partition, up to `last`, that could not become
    rows.
    """

    first: int
    last: int
    epoch: tuple[int, int]
    stream_time: int = -1
    anchor: Anchor | None = None
    misplaced: Misplaced | None = None
    rejected: int = 0
    input: TopicPartition | None = None
    others: tuple[OtherInput, ...] = ()
    v: int = RECORDS_VERSION

    def __post_init__(self) -> None:
        """Raise ValueError for a version that has no such members."""
        if (self.v == RECORDS_VERSION and (self.input or self.others)) or (
            self.v == SEVERAL_INPUTS_VERSION and self.input is None
        ):
            raise ValueError(f"a position of version {self.v} in {self.input} and {len(self.others)} other inputs")

    def of(self, source: TopicPartition) -> InputSpan | None:
        """Return what it says of an input of its task; None if nothing of that was fed yet."""
        if self.input is None or source == self.input:
            return InputSpan(self.first, self.last, self.anchor)
        for other in self.others:
            if source == other.input:
                return InputSpan(other.last + 1, other.last, other.anchor)
        return None

    def among(self, inputs: Sequence[TopicPartition], source: TopicPartition, known: Self | None) -> Self:
        """Return this position in `source` as that of a task with these inputs; `known` is the task's before it."""
        if len(inputs) == 1:
            return self
        spans = {} if known is None else {one: known.of(one) for one in inputs if one != source}
        others = tuple(OtherInput(one, span.last, span.anchor) for one, span in spans.items() if span is not None)
        return msgspec.structs.replace(self, input=source, others=others, v=SEVERAL_INPUTS_VERSION)

    def require_inputs(self, inputs: Sequence[TopicPartition]) -> None:
        """Raise MalformedRecord unless it is a position of a task with these inputs."""
        named = () if self.input is None else (self.input, *(other.input for other in self.others))
        if len(set(named)) != len(named) or not set(named) <= set(inputs) or (len(inputs) > 1) != bool(named):
            raise MalformedRecord(f"a position in {_listed(named) or 'one input'}; the table reads {_listed(inputs)}")


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """An owner's claim of a changelog partition: after it only `epoch` may append.

    `nonce` tells the winner of a race from the loser, whose append seems to succeed too. `log_id` is drawn by the first
    claim of a log and repeated by every later one: a log with another id is another log. `seals` marks the record that
    closes a producer id before the next one is used; no worker owns its epoch.
    """

    epoch: tuple[int, int]
    nonce: bytes
    generation: int
    worker: str
    fingerprint: dict[str, str]
    log_id: bytes
    seals: bool = False
    v: int = RECORDS_VERSION


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a store records in addition to its rows.

    `next_offset` is the changelog offset to continue at. `applied_at` is the append time of the newest changelog record
    applied, or when the replay from the start began if that is later (the brokers' clock, milliseconds).
    `claim_offset` is the offset of the newest claim seen. `unbroken` says that no offset was missing between the record
    of `position` and `next_offset`, so the next position has to follow it.
    """

    next_offset: int
    applied_at: int
    epoch: tuple[int, int]
    log_id: bytes
    claim_offset: int
    layout: int
    fingerprint: dict[str, str]
    position: PositionRecord | None = None
    unbroken: bool = False
    v: int = RECORDS_VERSION


class _Versioned(msgspec.Struct):
    """The member that records of all versions have."""

    v: int = RECORDS_VERSION


def _listed(inputs: Sequence[TopicPartition]) -> str:
    return ", ".join(map(str, inputs))


_Record = TypeVar("_Record", PositionRecord, Claim, Checkpoint)
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, Any] = {kind: msgspec.msgpack.Decoder(kind) for kind in (PositionRecord, Claim, Checkpoint)}
_versions = msgspec.msgpack.Decoder(_Versioned)
_NEWEST: dict[type, int] = {
    PositionRecord: SEVERAL_INPUTS_VERSION,
    Claim: RECORDS_VERSION,
    Checkpoint: SEVERAL_INPUTS_VERSION,
}

#: Encodes a PositionRecord, a Claim or a Checkpoint.
encode = _encoder.encode


def decode(kind: type[_Record], data: bytes) -> _Record:
    """Decode a record; raises MalformedRecord, and NewerRecord for one of a later version."""
    try:
        record: _Record = _decoders[kind].decode(data)
    except (ValueError, RecursionError) as error:
        # A later version may have members of other types under the same names.
        if _version_of(data) > _NEWEST[kind]:
            raise _unknown_version(kind, _version_of(data)) from error
        raise MalformedRecord(f"not a {kind.__name__}: {error}") from error
    if not RECORDS_VERSION <= record.v <= _NEWEST[kind]:
        raise _unknown_version(kind, record.v)
    return record


def _version_of(data: bytes) -> int:
    try:
        return _versions.decode(data).v
    except (ValueError, RecursionError):
        return RECORDS_VERSION


def _unknown_version(kind: type, version: int) -> MalformedRecord:
    unknown = NewerRecord if version > _NEWEST[kind] else MalformedRecord
    return unknown(f"{kind.__name__} of version {version}; known is version {_NEWEST[kind]}")


def epoch_header(epoch: Epoch) -> tuple[str, bytes]:
    """Return the header of every record of `epoch`."""
    return EPOCH_HEADER, _EPOCH.pack(*epoch)


def epoch_headers(epoch: Epoch) -> list[tuple[str, bytes]]:
    """Return the headers of every record of `epoch`."""
    return [epoch_header(epoch)]


def epoch_of(headers: Sequence[tuple[str, bytes]]) -> Epoch:
    """Return the epoch that a record was written under; NO_EPOCH for a record without one."""
    if len(headers) == 1:
        name, value = headers[0]
        if name == EPOCH_HEADER and value and len(value) == _EPOCH.size:
            return Epoch(*_EPOCH.unpack(value))
    return NO_EPOCH


def anchor_of(record: LogRecord) -> Anchor:
    """Return the anchor of `record`."""
    digest = hashlib.blake2b(record.key or b"", digest_size=8)
    digest.update(b"\x00" if record.value is None else b"\x01" + record.value)
    return Anchor(record.offset, record.timestamp, digest.digest())
