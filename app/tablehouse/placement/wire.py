"""The messages that workers exchange in Kafka's group protocol; their format is fixed since the first release.

A message is one version byte followed by a zlib stream of msgpack. Structs are msgpack maps by field name, so a reader
ignores unknown fields, and fields added later have defaults: the version only changes if an older reader would misread
a message.

Messages of other members are validated before use, since any client that may join the group can send anything: each
decode function returns a valid message or raises WireError.
"""

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from tablehouse.config import setting_values
from tablehouse.errors import TablehouseError
from tablehouse.placement.packing import Layers, pack, unpack

#: The protocol name by which the group agrees on this format; a group never mixes assignors.
PROTOCOL = "tablehouse"

#: The only version so far.
VERSION = 1

#: Maximum unpacked bytes of one member's metadata, and of all members together. As objects they take up to 40 times as
#: much. A worker with 50,000 partitions sends less than the first limit.
MAX_METADATA_BYTES = 1024 * 1024
MAX_GROUP_METADATA_BYTES = 4 * MAX_METADATA_BYTES

#: Maximum unpacked bytes of an assignment, and maximum number of shard copies in it.
MAX_ASSIGNMENT_BYTES = 4 * 1024 * 1024
MAX_PLACED_COPIES = 500_000

_WORKER_ID = re.compile(r"[\x21-\x7e]{1,255}")
_LABEL = re.compile(r"[\x20-\x7e]{0,128}")
_TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
_MAX_NUMBER = 2**63


class WireError(TablehouseError):
    """A message of another member is invalid; the error says why, and which version is supported."""


class MemberMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata that a worker sends when it joins.

    url is the internal listener's, as peers reach it. positions are, per shard name and partition, the lowest
    position of the shard's tasks on this worker, -1 for an empty shard; shards that it does not hold are absent. Each
    is one number, since only copies of one shard are compared: Position.total, which for one input is the offset. Names
    of shards are restricted to the characters of topic names.
    misplaced are the tables, by changelog topic, for which it knows a record in the wrong partition: that record's
    partition and offset. actives, standbys and warming are its assignment in the previous generation, as in
    MemberAssignment; empty for a process that has just started. tables are the first bytes of a digest of each table's
    definition, by name.
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
    """The shards of one worker: partitions by shard name, ascending.

    warming are the standbys that become active once they have caught up.
    """

    actives: dict[str, list[int]]
    standbys: dict[str, list[int]]
    warming: dict[str, list[int]] = {}


class PlacedMember(msgspec.Struct, frozen=True):
    """One worker in the distribution: its identity, the URL at which peers reach it, and its shards."""

    worker_id: str
    incarnation: int
    url: str
    actives: dict[str, list[int]]
    standbys: dict[str, list[int]]


class CatalogInUse(msgspec.Struct, frozen=True):
    """One of several tables.yaml files in use: the worker ids of its members, and `tables` as in MemberMetadata."""

    workers: list[str]
    tables: dict[str, bytes]


class Assignment(msgspec.Struct, frozen=True):
    """The leader's message to one member: its own shards, and those of all members, so that every worker can route.

    partitions are the leader's partition counts by shard name; every worker hashes with these. misplaced is the union
    of all members'. left_out are members that got nothing because their metadata is invalid, by Kafka's member id, with
    the reason; there may be more than are listed. catalogs is empty if all members have the same tables.yaml.
    """

    own: MemberAssignment
    partitions: dict[str, int]
    members: list[PlacedMember]
    misplaced: dict[str, tuple[int, int]] = {}
    left_out: dict[str, str] = {}
    catalogs: list[CatalogInUse] = []


class _Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The wire form of an Assignment, with the distribution packed."""

    own: MemberAssignment
    partitions: dict[str, int]
    members: list[tuple[str, int, str]]
    layers: Layers
    misplaced: dict[str, tuple[int, int]] = {}
    left_out: dict[str, str] = {}
    catalogs: list[CatalogInUse] = []


_metadata = msgspec.msgpack.Decoder(MemberMetadata)
_assignment = msgspec.msgpack.Decoder(_Sent)


def encode_metadata(metadata: MemberMetadata) -> bytes:
    """Encode the user data of a JoinGroup request."""
    return _pack(metadata)


def decode_metadata(data: bytes) -> MemberMetadata:
    """Decode a member's user data of a JoinGroup request; raises WireError."""
    metadata = _decode(_metadata, _unpack(data, "join metadata", MAX_METADATA_BYTES), "join metadata")
    _check_worker(metadata.worker_id, metadata.incarnation, metadata.url)
    if not _LABEL.fullmatch(metadata.zone) or not _LABEL.fullmatch(metadata.catalog_digest):
        raise WireError("a member sent an invalid zone or digest")
    for named in (metadata.positions, metadata.actives, metadata.standbys, metadata.warming, metadata.misplaced):
        _check_topics(named)
    _check_tables(metadata.tables)
    return metadata


def decode_group(sent: Mapping[str, bytes]) -> tuple[dict[str, MemberMetadata], dict[str, WireError]]:
    """Decode the user data of all members of a group, by their ids; return the valid ones, and the error of each other.

    The total size of all members is limited too. The smallest are decoded first, so that an oversized one does not
    exclude others.
    """
    described: dict[str, MemberMetadata] = {}
    unusable: dict[str, WireError] = {}
    sizes: dict[str, int] = {}
    for member, data in sent.items():
        try:
            sizes[member] = len(_unpack(data, "join metadata", MAX_METADATA_BYTES))
        except WireError as error:
            unusable[member] = error
    total = 0
    for member in sorted(sizes, key=lambda member: (sizes[member], member)):
        total += sizes[member]
        if total > MAX_GROUP_METADATA_BYTES:
            unusable[member] = WireError(
                f"the join metadata of the group unpacks to over {MAX_GROUP_METADATA_BYTES} bytes; this is one of the "
                "largest"
            )
            continue
        try:
            described[member] = decode_metadata(sent[member])
        except WireError as error:
            unusable[member] = error
    return described, unusable


def encode_assignments(messages: Mapping[str, Assignment]) -> dict[str, bytes]:
    """Encode the user data of each member's SyncGroup assignment, by member id.

    The messages are of one generation: they only differ in `own`.
    """
    if not messages:
        return {}
    shared = next(iter(messages.values()))
    members = [(member.worker_id, member.incarnation, member.url) for member in shared.members]
    layers = pack(shared.members, shared.partitions)
    return {
        name: _pack(
            _Sent(message.own, shared.partitions, members, layers, shared.misplaced, shared.left_out, shared.catalogs),
        )
        for name, message in messages.items()
    }


def decode_assignment(data: bytes) -> Assignment:
    """Decode the user data of a SyncGroup assignment; raises WireError."""
    sent = _decode(_assignment, _unpack(data, "assignment", MAX_ASSIGNMENT_BYTES), "assignment")
    for worker in sent.members:
        _check_worker(*worker)
    _check_topics(sent.partitions)
    _check_topics(sent.misplaced)
    for catalog in sent.catalogs:
        _check_tables(catalog.tables)
        if not all(_WORKER_ID.fullmatch(worker) for worker in catalog.workers):
            raise WireError("the leader of the group sent an invalid worker id")
    if sum(len(layer) for layers in sent.layers.values() for layer in layers) > 2 * MAX_PLACED_COPIES:
        raise WireError(f"the leader of the group sent an assignment of more than {MAX_PLACED_COPIES} copies of shards")
    own = sent.own
    for held in (own.actives, own.standbys, own.warming):
        for topic, partitions in held.items():
            if not all(0 <= partition < sent.partitions.get(topic, 0) for partition in partitions):
                raise WireError(f"the leader of the group gave this worker partitions of {topic!r} that do not exist")
    try:
        held_by = unpack(sent.layers, sent.partitions, len(sent.members))
    except ValueError as error:
        raise WireError(f"the leader of the group sent an invalid assignment: {error}") from error
    members = [PlacedMember(*member, *parts) for member, parts in zip(sent.members, held_by, strict=True)]
    return Assignment(own, sent.partitions, members, sent.misplaced, sent.left_out, sent.catalogs)


def check_subscription(topics: object) -> frozenset[str]:
    """Return the topics that a member subscribes to, from Kafka's own part of its metadata; raises WireError."""
    if not isinstance(topics, list):
        raise WireError("a member sent no list of topics")
    _check_topics(topics)
    return frozenset(topics)


def _pack(value: msgspec.Struct) -> bytes:
    return bytes((VERSION,)) + zlib.compress(msgspec.msgpack.encode(value), 6)


def _check_worker(worker_id: str, incarnation: int, url: str) -> None:
    """Raise WireError unless a worker's identity is valid; this worker will send requests to its URL."""
    if not _WORKER_ID.fullmatch(worker_id) or not 0 <= incarnation < _MAX_NUMBER:
        raise WireError("a member sent an invalid worker id or incarnation")
    try:
        setting_values.url(url)
    except ValueError as error:
        raise WireError(f"the URL of worker {worker_id} {error}") from None


def _check_topics(topics: Iterable[object]) -> None:
    for topic in topics:
        if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
            raise WireError("a member sent an invalid topic name")


def _check_tables(tables: Iterable[str]) -> None:
    if not all(_LABEL.fullmatch(table) for table in tables):
        raise WireError("a member sent an invalid table name")


_T = TypeVar("_T")


def _unpack(data: bytes, what: str, limit: int) -> bytes:
    if not data:
        raise WireError(f"a member sent no {what}: every worker of the group must run Tablehouse")
    if data[0] != VERSION:
        raise WireError(
            f"a member sent {what} of version {data[0]}, this worker understands version {VERSION}: "
            "upgrade this worker, or run the newer workers in a separate group",
        )
    try:
        inflate = zlib.decompressobj()
        packed = inflate.decompress(data[1:], limit)
    except zlib.error as error:
        raise WireError(f"a member sent {what} that cannot be read: {error}") from error
    if not inflate.eof:
        raise WireError(f"a member sent {what} that is truncated or unpacks to over {limit} bytes")
    return packed


def _decode(decoder: msgspec.msgpack.Decoder[_T], packed: bytes, what: str) -> _T:
    try:
        return decoder.decode(packed)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"a member sent {what} that cannot be read: {error}") from error
