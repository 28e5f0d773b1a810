import contextlib
import random
import tracemalloc
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.placement.assign import assignments, place
from tablehouse.placement.wire import (
    MAX_ASSIGNMENT_BYTES,
    MAX_METADATA_BYTES,
    MAX_PLACED_COPIES,
    PROTOCOL,
    VERSION,
    Assignment,
    MemberAssignment,
    MemberMetadata,
    PlacedMember,
    WireError,
    decode_assignment,
    decode_group,
    decode_metadata,
    encode_assignments,
    encode_metadata,
)

METADATA = MemberMetadata(
    worker_id="w1",
    incarnation=3,
    url="http://w1:9080",
    catalog_digest="ab12",
    positions={"flights": {0: 41, 2: -1}},
    zone="z1",
    misplaced={"g-flights-changelog": (1, 7)},
    actives={"flights": [0]},
    standbys={"flights": [2]},
    warming={"flights": [2]},
)
ASSIGNMENT = Assignment(
    own=MemberAssignment(actives={"flights": [0]}, standbys={"flights": [1]}, warming={"flights": [1]}),
    partitions={"flights": 2},
    members=[
        PlacedMember(
            worker_id="w1", incarnation=3, url="http://w1:9080", actives={"flights": [0]}, standbys={"flights": [1]}
        ),
        PlacedMember(worker_id="w2", incarnation=1, url="http://w2:9080", actives={"flights": [1]}, standbys={}),
    ],
    misplaced={"g-flights-changelog": (1, 7)},
)

# The format as it was released. When one of these has to change, every running group has to be stopped for
# it.
METADATA_MSGPACK = bytes.fromhex(
    "8aa9776f726b65725f6964a27731ab696e6361726e6174696f6e03a375726cae687474703a2f2f77313a39303830ae636174"
    "616c6f675f646967657374a461623132a9706f736974696f6e7381a7666c696768747382002902ffa47a6f6e65a27a31a96d"
    "6973706c6163656481b3672d666c69676874732d6368616e67656c6f67920107a76163746976657381a7666c696768747391"
    "00a87374616e6462797381a7666c69676874739102a77761726d696e6781a7666c69676874739102"
)
ASSIGNMENT_MSGPACK = bytes.fromhex(
    "85a36f776e83a76163746976657381a7666c69676874739100a87374616e6462797381a7666c69676874739101a77761726d"
    "696e6781a7666c69676874739101aa706172746974696f6e7381a7666c696768747302a76d656d626572739293a2773103ae"
    "687474703a2f2f77313a3930383093a2773201ae687474703a2f2f77323a39303830a66c617965727381a7666c6967687473"
    "92c4020102c4020001a96d6973706c6163656481b3672d666c69676874732d6368616e67656c6f67920107"
)


def encoded(assignment: Assignment) -> bytes:
    return encode_assignments({"me": assignment})["me"]


def unpacked(message: bytes) -> bytes:
    return zlib.decompress(message[1:])


def test_the_protocol_name_and_version_are_those_of_the_first_release() -> None:
    assert (PROTOCOL, VERSION) == ("tablehouse", 1)
    assert encode_metadata(METADATA)[0] == 1


def test_metadata_and_assignment_come_back_as_they_were_sent() -> None:
    assert decode_metadata(encode_metadata(METADATA)) == METADATA
    assert decode_assignment(encoded(ASSIGNMENT)) == ASSIGNMENT


def test_the_bytes_are_those_of_the_first_release() -> None:
    assert unpacked(encode_metadata(METADATA)) == METADATA_MSGPACK
    assert unpacked(encoded(ASSIGNMENT)) == ASSIGNMENT_MSGPACK
    assert decode_metadata(b"\x01" + zlib.compress(METADATA_MSGPACK)) == METADATA
    assert decode_assignment(b"\x01" + zlib.compress(ASSIGNMENT_MSGPACK)) == ASSIGNMENT


def test_a_field_added_by_a_later_release_is_ignored() -> None:
    fields = msgspec.msgpack.decode(METADATA_MSGPACK) | {"warm": True}
    assert decode_metadata(b"\x01" + zlib.compress(msgspec.msgpack.encode(fields))) == METADATA


def test_what_lacks_a_field_added_later_has_its_default() -> None:
    fields = msgspec.msgpack.decode(METADATA_MSGPACK)
    for added in ("zone", "misplaced", "actives", "standbys", "warming"):
        del fields[added]
    decoded = decode_metadata(b"\x01" + zlib.compress(msgspec.msgpack.encode(fields)))
    assert decoded == msgspec.structs.replace(METADATA, zone="", misplaced={}, actives={}, standbys={}, warming={})

    fields = msgspec.msgpack.decode(ASSIGNMENT_MSGPACK)
    del fields["misplaced"], fields["own"]["warming"]
    assignment = decode_assignment(b"\x01" + zlib.compress(msgspec.msgpack.encode(fields)))
    own = msgspec.structs.replace(ASSIGNMENT.own, warming={})
    assert assignment == msgspec.structs.replace(ASSIGNMENT, own=own, misplaced={})


def test_a_distribution_comes_back_with_any_number_of_members_and_standbys() -> None:
    chance = random.Random(7)
    topics = {"a": 300, "b": 5, "empty": 0}
    for members, standbys in ((1, 0), (4, 3), (254, 1), (255, 1), (300, 2)):
        described = {f"m{number}": metadata(number, {}) for number in range(members)}
        placed = place(described, topics, dict.fromkeys(topics, standbys), 0)
        messages = assignments(described, placed, topics)
        sent = encode_assignments(messages)
        assert sent.keys() == described.keys()
        name = chance.choice(sorted(described))
        assert decode_assignment(sent[name]) == messages[name]


def test_a_distribution_that_names_a_member_that_is_not_there_is_refused() -> None:
    fields = msgspec.msgpack.decode(ASSIGNMENT_MSGPACK)
    fields["layers"]["flights"][0] = b"\x01\x03"
    with pytest.raises(WireError, match=r"flights\[1\] is assigned to member 3 of 2"):
        decode_assignment(b"\x01" + zlib.compress(msgspec.msgpack.encode(fields)))


def test_nobody_is_sent_nothing() -> None:
    assert encode_assignments({}) == {}


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


def metadata(number: int, positions: dict[str, dict[int, int]]) -> MemberMetadata:
    chance = random.Random(number)
    return MemberMetadata(
        worker_id=f"{chance.getrandbits(128):032x}",
        incarnation=number,
        url=f"http://tablehouse-{number}.tablehouse-headless.production.svc.cluster.local:9080",
        catalog_digest="0123456789abcdef" * 2,
        positions=positions,
        actives={},
        standbys={},
        zone=f"eu-west-1{'abc'[number % 3]}",
    )


@pytest.mark.parametrize(
    ("members", "topics", "partitions", "most"), [(50, 10, 256, 512 * 1024), (100, 10, 200, 768 * 1024)]
)
def test_what_a_big_group_sends_stays_below_a_record_s_limit(
    members: int, topics: int, partitions: int, most: int
) -> None:
    # Kafka keeps what all members said and what all were sent in one record, of 1 MiB at most by default. Members
    # report the copies in use, some that earlier assignments left on their disks, and what they owned. Nothing is
    # where it was put at the start, which would compress better.
    chance = random.Random(1)
    counts = {f"orders-by-region-{number}": partitions for number in range(topics)}
    names = [f"faust-1.0-{chance.getrandbits(128):032x}" for _ in range(members)]
    group = {name: metadata(number, {topic: {} for topic in counts}) for number, name in enumerate(names)}
    for topic in counts:
        for shuffled in range(3):
            for partition, number in enumerate(chance.sample(range(partitions), partitions)):
                member = group[names[number % members]]
                member.positions[topic][partition] = 10**9 + 7919 * partition - chance.randrange(10_000)
                if shuffled < 2:
                    (member.actives, member.standbys)[shuffled].setdefault(topic, []).append(partition)
    placed = place(group, counts, dict.fromkeys(counts, 1), 10_000)
    joins = sum(len(encode_metadata(member)) for member in group.values())
    syncs = sum(len(data) for data in encode_assignments(assignments(group, placed, counts)).values())
    assert joins + syncs < most


def test_a_message_that_unpacks_without_end_is_refused() -> None:
    bomb = b"\x01" + zlib.compress(bytes(64 * 1024 * 1024))
    assert len(bomb) < 100_000
    with pytest.raises(WireError, match=f"unpacks to over {MAX_METADATA_BYTES} bytes"):
        decode_metadata(bomb)
    with pytest.raises(WireError, match=f"unpacks to over {MAX_ASSIGNMENT_BYTES} bytes"):
        decode_assignment(bomb)


def test_what_a_message_unpacks_to_stays_small_as_objects_too() -> None:
    # Empty lists under short names take the most memory for their bytes.
    name = msgspec.msgpack.encode("actives")
    count = (MAX_METADATA_BYTES - 1000) // 6
    entries = b"".join(b"\xa4%04x\x90" % (number % 65536) for number in range(count))
    bomb = METADATA_MSGPACK.replace(
        name + b"\x81\xa7flights\x91\x00", name + b"\xdf" + count.to_bytes(4, "big") + entries
    )
    assert len(bomb) > MAX_METADATA_BYTES - 2000
    tracemalloc.start()
    try:
        decode_metadata(b"\x01" + zlib.compress(bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


def test_of_a_group_that_sent_too_much_the_largest_are_left_out() -> None:
    large = {f"topic-{number:06}-{'x' * 200}": {0: number} for number in range(3_500)}
    group = {f"small-{number}": encode_metadata(metadata(number, {})) for number in range(20)}
    group |= {f"large-{number}": encode_metadata(metadata(number, large)) for number in range(7)}
    described, unusable = decode_group(group)
    assert {name for name in group if name.startswith("small")} < described.keys()
    assert len(unusable) == 2
    assert all(name.startswith("large") for name in unusable)
    assert all("of the largest" in str(error) for error in unusable.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://user:secret@w1:9080"},
        {"url": "https://w1:9080"},
        {"url": "file:///etc/passwd"},
        {"url": "http://w1:9080/path"},
        {"url": f"http://{'w' * 300}:9080"},
        {"url": ""},
        {"worker_id": ""},
        {"worker_id": "w\r\nX-Injected: 1"},
        {"worker_id": "w" * 300},
        {"incarnation": -1},
        {"incarnation": 2**63},
        {"zone": "a\nb"},
        {"catalog_digest": "x" * 1000},
        {"positions": {"no topic": {0: 1}}},
        {"actives": {"x" * 250: [0]}},
        {"misplaced": {"..": (0, 0)}},
    ],
)
def test_what_no_worker_says_of_itself_is_refused_and_not_repeated(wrong: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        decode_metadata(encode_metadata(msgspec.structs.replace(METADATA, **wrong)))
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": [["w1", 3, "http://w1:9080"], ["w2", 1, "gopher://w2"]]},
        {"partitions": {"flights": 10**18}},
        {"partitions": {"flights": 2, "planes": 1}},
        {"partitions": {"flights": -2}},
        {"layers": {"flights": []}},
        {"layers": {"flights": [b"\x01"]}},
        {"layers": {"flights": [b"\x01\x02", b"\x01\x02" * MAX_PLACED_COPIES]}},
        {"own": {"actives": {"flights": [2]}, "standbys": {}}},
        {"own": {"actives": {"flights": [-1]}, "standbys": {}}},
        {"own": {"actives": {}, "standbys": {"planes": [0]}}},
    ],
)
def test_an_assignment_that_cannot_be_right_is_refused(wrong: dict[str, Any]) -> None:
    fields = msgspec.msgpack.decode(ASSIGNMENT_MSGPACK) | wrong
    with pytest.raises(WireError):
        decode_assignment(b"\x01" + zlib.compress(msgspec.msgpack.encode(fields)))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_bytes_that_were_tampered_with_are_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    packed = bytearray(data.draw(st.sampled_from([METADATA_MSGPACK, ASSIGNMENT_MSGPACK])))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    message = b"\x01" + zlib.compress(bytes(packed))
    for decode in (decode_metadata, decode_assignment):
        with contextlib.suppress(WireError):
            decode(message)
