"""The changelog's own records have the bytes they always had."""

import msgspec
import pytest

from tablehouse.model import NO_EPOCH, Epoch
from tablehouse.tasks.records import (
    CLAIM_KEY,
    EPOCH_HEADER,
    POSITION_KEY,
    Anchor,
    Checkpoint,
    Claim,
    MalformedRecord,
    PositionRecord,
    anchor_of,
    decode,
    encode,
    epoch_headers,
    epoch_of,
)
from tablehouse.testing.simulated.broker import Record

POSITION = PositionRecord(first=5, last=9, epoch=(0, 3), stream_time=1000, anchor=Anchor(9, 1000, b"12345678"))
CLAIM = Claim(epoch=(0, 3), nonce=b"n" * 12, generation=4, worker="w", fingerprint={"source": "t"}, log_id=b"l" * 12)
CHECKPOINT = Checkpoint(
    next_offset=12,
    applied_at=99,
    epoch=(0, 3),
    log_id=b"l" * 12,
    claim_offset=2,
    layout=1,
    fingerprint={},
    position=None,
)
GOLDEN = {
    "position": (
        POSITION,
        (
            "85a466726f6d05a2746f09a565706f6368920003ab73747265616d5f74696d65cd03e8a6616e63686f7283a66f666673657409a9"
            "74696d657374616d70cd03e8a6646967657374c4083132333435363738"
        ),
    ),
    "claim": (
        CLAIM,
        (
            "86a565706f6368920003a56e6f6e6365c40c6e6e6e6e6e6e6e6e6e6e6e6eaa67656e65726174696f6e04a6776f726b6572a177ab"
            "66696e6765727072696e7481a6736f75726365a174a66c6f675f6964c40c6c6c6c6c6c6c6c6c6c6c6c6c"
        ),
    ),
    "checkpoint": (
        CHECKPOINT,
        (
            "87ab6e6578745f6f66667365740caa6170706c6965645f617463a565706f6368920003a66c6f675f6964c40c6c6c6c6c6c6c6c6c"
            "6c6c6c6cac636c61696d5f6f666673657402a66c61796f757401ab66696e6765727072696e7480"
        ),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_record_has_the_bytes_it_always_had(name: str) -> None:
    record, golden = GOLDEN[name]
    assert encode(record).hex() == golden
    assert decode(type(record), bytes.fromhex(golden)) == record  # type: ignore[type-var]  # one of three kinds


def test_reserved_keys_are_what_they_always_were() -> None:
    assert (POSITION_KEY, CLAIM_KEY, EPOCH_HEADER) == (b"\x00position", b"\x00claim", "e")


@pytest.mark.parametrize(
    "data", [b"", b"\xff", encode({"v": 1}), encode({"from": 1, "to": 2, "epoch": [0, 1], "v": 2})]
)
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode(PositionRecord, data)


def test_members_that_a_later_version_added_are_passed_over() -> None:
    data = encode({"from": 1, "to": 2, "epoch": [0, 1], "added": "later"})
    assert decode(PositionRecord, data) == PositionRecord(first=1, last=2, epoch=(0, 1))


def test_an_epoch_crosses_in_a_header() -> None:
    assert epoch_headers(Epoch(1, 258)) == [("e", b"\x00\x01\x01\x02")]
    assert epoch_of(epoch_headers(Epoch(1, 258))) == Epoch(1, 258)


@pytest.mark.parametrize(
    "headers", [(), [("e", None)], [("x", b"\x00\x00\x00\x01")], [("e", b"\x01")], [("e", b"1234"), ("f", b"")]]
)
def test_a_record_without_our_header_has_no_epoch(headers: list[tuple[str, bytes]]) -> None:
    assert epoch_of(headers) == NO_EPOCH


@pytest.mark.parametrize("record", [POSITION, CLAIM, CHECKPOINT], ids=["position", "claim", "checkpoint"])
def test_a_record_of_a_version_that_is_not_known_is_refused_with_both_versions(
    record: PositionRecord | Claim | Checkpoint,
) -> None:
    later = encode(msgspec.structs.replace(record, v=2))
    with pytest.raises(MalformedRecord, match="of version 2; known is version 1"):
        decode(type(record), later)  # type: ignore[type-var]  # one of three kinds


def test_a_record_of_one_kind_is_none_of_another() -> None:
    for kind, record in ((PositionRecord, CLAIM), (Claim, POSITION), (Checkpoint, CLAIM)):
        with pytest.raises(MalformedRecord, match=f"not a {kind.__name__}"):
            decode(kind, encode(record))  # type: ignore[type-var]  # one of three kinds


def test_a_checkpoint_holds_its_position() -> None:
    checkpoint = msgspec.structs.replace(CHECKPOINT, position=POSITION)
    assert decode(Checkpoint, encode(checkpoint)) == checkpoint


def test_an_anchor_has_the_digest_it_always_had() -> None:
    assert anchor_of(Record(7, 1000, b"key", b"value")) == Anchor(7, 1000, bytes.fromhex("d8316190916d5ba8"))


def test_an_anchor_tells_null_from_empty_values_apart() -> None:
    assert anchor_of(Record(7, 1000, b"k", None)) != anchor_of(Record(7, 1000, b"k", b""))
