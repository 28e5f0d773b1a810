import zlib

import msgspec
import pytest

from app.placement import wire
from app.placement.assign import assignments, place
from app.placement.wire import (
    PROTOCOL,
    VERSION,
    Assignment,
    MemberAssignment,
    MemberMetadata,
    PlacedMember,
    WireError,
    decode_assignment,
    decode_metadata,
    encode_assignment,
    encode_metadata,
)

METADATA = MemberMetadata(
    worker_id="w1",
    incarnation=3,
    url="http://w1:9080",
    catalog_digest="ab12",
    positions={"flights": {0: 41, 2: -1}},
    misplaced={"g-flights-changelog": (1, 7)},
)
ASSIGNMENT = Assignment(
    own=MemberAssignment(actives={"flights": [0]}, standbys={}),
    partitions={"flights": 2},
    members=[
        PlacedMember(worker_id="w1", incarnation=3, url="http://w1:9080", actives={"flights": [0]}, standbys={}),
        PlacedMember(worker_id="w2", incarnation=1, url="http://w2:9080", actives={}, standbys={"flights": [0]}),
    ],
    misplaced={"g-flights-changelog": (1, 7)},
)

# The format as it was released. When one of these has to change, every running group has to be stopped for
# it.
METADATA_MSGPACK = bytes.fromhex(
    "87a9776f726b65725f6964a27731ab696e6361726e6174696f6e03a375726cae687474703a2f2f77313a3930"
    "3830ae636174616c6f675f646967657374a461623132a9706f736974696f6e7381a7666c6967687473820029"
    "02ffa47a6f6e65a0a96d6973706c6163656481b3672d666c69676874732d6368616e67656c6f67920107",
)
ASSIGNMENT_MSGPACK = bytes.fromhex(
    "84a36f776e82a76163746976657381a7666c69676874739100a87374616e6462797380aa706172746974696f"
    "6e7381a7666c696768747302a76d656d626572739285a9776f726b65725f6964a27731ab696e6361726e6174"
    "696f6e03a375726cae687474703a2f2f77313a39303830a76163746976657381a7666c69676874739100a873"
    "74616e646279738085a9776f726b65725f6964a27732ab696e6361726e6174696f6e01a375726cae68747470"
    "3a2f2f77323a39303830a76163746976657380a87374616e6462797381a7666c69676874739100a96d697370"
    "6c6163656481b3672d666c69676874732d6368616e67656c6f67920107",
)


def unpacked(message: bytes) -> bytes:
    return zlib.decompress(message[1:])


def test_the_protocol_name_and_version_are_those_of_the_first_release() -> None:
    assert (PROTOCOL, VERSION) == ("tablehouse", 1)
    assert encode_metadata(METADATA)[0] == 1


def test_metadata_and_assignment_come_back_as_they_were_sent() -> None:
    assert decode_metadata(encode_metadata(METADATA)) == METADATA
    assert decode_assignment(encode_assignment(ASSIGNMENT)) == ASSIGNMENT


def test_the_bytes_are_those_of_the_first_release() -> None:
    assert unpacked(encode_metadata(METADATA)) == METADATA_MSGPACK
    assert unpacked(encode_assignment(ASSIGNMENT)) == ASSIGNMENT_MSGPACK
    assert decode_metadata(b"\x01" + zlib.compress(METADATA_MSGPACK)) == METADATA
    assert decode_assignment(b"\x01" + zlib.compress(ASSIGNMENT_MSGPACK)) == ASSIGNMENT


def test_a_field_added_by_a_later_release_is_ignored() -> None:
    fields = msgspec.msgpack.decode(METADATA_MSGPACK) | {"warm": True}
    assert decode_metadata(b"\x01" + zlib.compress(msgspec.msgpack.encode(fields))) == METADATA


def test_a_newer_version_is_refused_with_both_versions() -> None:
    with pytest.raises(WireError, match=r"version 2, this worker understands version 1"):
        decode_metadata(b"\x02whatever")
    with pytest.raises(WireError, match=r"version 9"):
        decode_assignment(b"\x09")


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x01nozlib", encode_metadata(METADATA)[:-6], b"\x01" + zlib.compress(b"\xc1")]
)
def test_bytes_that_are_not_a_message_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_metadata(data)


def test_fifty_members_with_256_partitions_of_four_topics_stay_far_below_a_record_limit() -> None:
    topics = {f"topic-{number}": 256 for number in range(4)}
    members = {
        f"faust-1.0-{number:02}": MemberMetadata(
            worker_id=f"{number:032x}",
            incarnation=number,
            url=f"http://tablehouse-{number}.tablehouse-headless.production.svc.cluster.local:9080",
            catalog_digest="0123456789abcdef" * 2,
            positions={
                topic: {partition: 10**9 + partition * 7919 for partition in range(number, 256, 50)} for topic in topics
            },
        )
        for number in range(50)
    }
    messages = assignments(members, place(members, topics), topics)
    joins = sum(len(encode_metadata(metadata)) for metadata in members.values())
    syncs = sum(len(encode_assignment(message)) for message in messages.values())
    assert joins < 50 * 1024
    assert syncs < 400 * 1024


def test_a_message_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(WireError, match="1000 bytes"):
        decode_metadata(b"\x01" + zlib.compress(bytes(100_000)))
