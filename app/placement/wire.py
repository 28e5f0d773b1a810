"""The bytes that workers exchange inside Kafka's group protocol, fixed since the first release.

A message is one version byte followed by a zlib stream of msgpack. Members are msgpack maps by field name,
so a reader ignores fields that it does not know, and a field added later has a default: only a change that
an older reader must not misread raises the version.
"""

import zlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from app.errors import TablehouseError
from app.placement.packing import Layers, pack, unpack

#: The name under which the group agrees on this format; a group never mixes it with another assignor's.
PROTOCOL = "tablehouse"

#: The only version there is so far.
VERSION = 1

#: What one message may unpack to; a peer's bytes must not be able to exhaust this process.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024


class WireError(TablehouseError):
    """Another member's bytes cannot be read; the message says which version would have been understood."""


class MemberMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says of itself when it joins.

    url is the internal listener's, as peers reach it. positions are, per source topic and partition, the
    lowest position over the shard's tasks that this worker holds, -1 for a shard that is there and empty; a
    shard that it does not hold is absent. misplaced are the tables, by changelog topic, of which it knows a record in
    the wrong partition: that record's partition and offset. actives, standbys and warming are what it was assigned in
    the generation before, as in MemberAssignment; a process that has just started had nothing. tables are the first
    bytes of a digest of each table's definition, by its name.
    """

    worker_id: str
    incarnation: int
    url: str
    catalog_digest: str
    positions: dict[str, dict[int, int]]
    zone: str = ""
    misplaced: dict[str, tuple[int, int]] = {}
    actives: dict[str, list[int]] = {}
    standbys: dict[str, list[int]] = {}
    warming: dict[str, list[int]] = {}
    tables: dict[str, bytes] = {}


class MemberAssignment(msgspec.Struct, frozen=True):
    """The partitions of one worker, per source topic, ascending.

    warming are those of the standbys that are to become active once they have caught up.
    """

    actives: dict[str, list[int]]
    standbys: dict[str, list[int]]
    warming: dict[str, list[int]] = {}


class PlacedMember(msgspec.Struct, frozen=True):
    """One worker in the distribution: who it is, where peers reach it, and what it holds."""

    worker_id: str
    incarnation: int
    url: str
    actives: dict[str, list[int]]
    standbys: dict[str, list[int]]


class CatalogInUse(msgspec.Struct, frozen=True):
    """One of several tables.yaml files that members have: their worker ids, and `tables` as in MemberMetadata."""

    workers: list[str]
    tables: dict[str, bytes]


class Assignment(msgspec.Struct, frozen=True):
    """What the leader sends to one member: its own shards, and everybody's, so that every worker routes.

    partitions are the partition counts by source topic that the leader placed by; every worker hashes with
    these. misplaced are those of all members together. catalogs are empty when all members have the same tables.yaml.
    """

    own: MemberAssignment
    partitions: dict[str, int]
    members: list[PlacedMember]
    misplaced: dict[str, tuple[int, int]] = {}
    catalogs: list[CatalogInUse] = []


class _Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An Assignment on its way, the distribution packed."""

    own: MemberAssignment
    partitions: dict[str, int]
    members: list[tuple[str, int, str]]
    layers: Layers
    misplaced: dict[str, tuple[int, int]] = {}
    catalogs: list[CatalogInUse] = []


_metadata = msgspec.msgpack.Decoder(MemberMetadata)
_assignment = msgspec.msgpack.Decoder(_Sent)


def encode_metadata(metadata: MemberMetadata) -> bytes:
    """Pack the user data of a JoinGroup request."""
    return _pack(metadata)


def decode_metadata(data: bytes) -> MemberMetadata:
    """Unpack a member's user data of a JoinGroup; raises WireError."""
    return _unpack(_metadata, data, "join metadata")


def encode_assignments(messages: Mapping[str, Assignment]) -> dict[str, bytes]:
    """Pack the user data of the SyncGroup assignment of each member, by whatever names them.

    The messages are of one generation: they differ in `own` alone.
    """
    if not messages:
        return {}
    shared = next(iter(messages.values()))
    members = [(member.worker_id, member.incarnation, member.url) for member in shared.members]
    layers = pack(shared.members, shared.partitions)
    return {
        name: _pack(_Sent(message.own, shared.partitions, members, layers, shared.misplaced, shared.catalogs))
        for name, message in messages.items()
    }


def decode_assignment(data: bytes) -> Assignment:
    """Unpack the user data of a SyncGroup assignment; raises WireError."""
    sent = _unpack(_assignment, data, "assignment")
    try:
        held = unpack(sent.layers, len(sent.members))
    except ValueError as error:
        raise WireError(f"the leader of the group sent an assignment that cannot be right: {error}") from error
    members = [PlacedMember(*member, *parts) for member, parts in zip(sent.members, held, strict=True)]
    return Assignment(sent.own, sent.partitions, members, sent.misplaced, sent.catalogs)


def _pack(value: msgspec.Struct) -> bytes:
    return bytes((VERSION,)) + zlib.compress(msgspec.msgpack.encode(value), 6)


_T = TypeVar("_T")


def _unpack(decoder: msgspec.msgpack.Decoder[_T], data: bytes, what: str) -> _T:
    if not data:
        raise WireError(f"a member sent no {what}: every worker of the group must run Tablehouse")
    if data[0] != VERSION:
        raise WireError(
            f"a member sent {what} of version {data[0]}, this worker understands version {VERSION}: "
            "upgrade this worker, or give the newer workers a group of their own",
        )
    try:
        inflate = zlib.decompressobj()
        packed = inflate.decompress(data[1:], MAX_UNPACKED_BYTES)
        if not inflate.eof:
            raise WireError(f"a member sent {what} that is cut off, or unpacks to over {MAX_UNPACKED_BYTES} bytes")
        return decoder.decode(packed)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise WireError(f"a member sent {what} that cannot be read: {error}") from error
