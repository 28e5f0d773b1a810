"""The changelog's own records have the bytes they always had."""

import msgspec
import pytest

from tablehouse.model import NO_EPOCH, Epoch, TopicPartition
from tablehouse.tasks.records import (
    CLAIM_KEY,
    EPOCH_HEADER,
    POSITION_KEY,
    Anchor,
    Checkpoint,
    Claim,
    InputSpan,
    MalformedRecord,
    NewerRecord,
    OtherInput,
    PositionRecord,
    anchor_of,
    decode,
    encode,
    epoch_headers,
    epoch_of,
)
from tablehouse.testing.simulated.broker import Record

POSITION = PositionRecord(first=5, last=9, epoch=(0, 3), stream_time=1000, anchor=Anchor(9, 1000, b"12345678"))
ORDERS, PAYMENTS, RETURNS = (TopicPartition(topic, 2) for topic in ("orders", "payments", "returns"))
#: That of a task with several inputs, in none of which it is at the same offset.
SEVERAL = PositionRecord(
    first=5,
    last=9,
    epoch=(0, 3),
    stream_time=1000,
    anchor=Anchor(9, 1000, b"12345678"),
    input=PAYMENTS,
    others=(OtherInput(ORDERS, 1206, Anchor(1206, 900, b"abcdefgh")), OtherInput(RETURNS, -1)),
    v=2,
)
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
    "position in several inputs": (
        SEVERAL,
        (
            "88a466726f6d05a2746f09a565706f6368920003ab73747265616d5f74696d65cd03e8a6616e63686f7283a66f666673657409a9"
            "74696d657374616d70cd03e8a6646967657374c4083132333435363738a5696e70757492a87061796d656e747302a66f74686572"
            "739283a5696e70757492a66f726465727302a2746fcd04b6a6616e63686f7283a66f6666736574cd04b6a974696d657374616d70"
            "cd0384a6646967657374c408616263646566676882a5696e70757492a772657475726e7302a2746fffa17602"
        ),
    ),
    "checkpoint of several inputs": (
        msgspec.structs.replace(CHECKPOINT, position=SEVERAL, v=2),
        (
            "89ab6e6578745f6f66667365740caa6170706c6965645f617463a565706f6368920003a66c6f675f6964c40c6c6c6c6c6c6c6c6c"
            "6c6c6c6cac636c61696d5f6f666673657402a66c61796f757401ab66696e6765727072696e7480a8706f736974696f6e88a46672"
            "6f6d05a2746f09a565706f6368920003ab73747265616d5f74696d65cd03e8a6616e63686f7283a66f666673657409a974696d65"
            "7374616d70cd03e8a6646967657374c4083132333435363738a5696e70757492a87061796d656e747302a66f74686572739283a5"
            "696e70757492a66f726465727302a2746fcd04b6a6616e63686f7283a66f6666736574cd04b6a974696d657374616d70cd0384a6"
            "646967657374c408616263646566676882a5696e70757492a772657475726e7302a2746fffa17602a17602"
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


@pytest.mark.parametrize(
    ("record", "known"), [(POSITION, 2), (CLAIM, 1), (CHECKPOINT, 2)], ids=["position", "claim", "checkpoint"]
)
def test_a_record_of_a_version_that_is_not_known_is_refused_with_both_versions(
    record: PositionRecord | Claim | Checkpoint, known: int
) -> None:
    later = encode(msgspec.structs.replace(record, v=known + 1))
    with pytest.raises(NewerRecord, match=f"of version {known + 1}; known is version {known}"):
        decode(type(record), later)  # type: ignore[type-var]  # one of three kinds
    with pytest.raises(MalformedRecord, match=f"of version 0; known is version {known}"):
        decode(type(record), encode(msgspec.structs.replace(record, v=0)))  # type: ignore[type-var]


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


def test_a_position_of_one_input_does_not_name_it_and_is_of_whatever_that_is() -> None:
    assert POSITION.of(ORDERS) == InputSpan(5, 9, POSITION.anchor)
    assert POSITION.among((ORDERS,), ORDERS, None) is POSITION
    POSITION.require_inputs((ORDERS,))


def test_a_position_in_several_inputs_says_of_each_how_far_it_is() -> None:
    assert SEVERAL.of(PAYMENTS) == InputSpan(5, 9, SEVERAL.anchor)
    assert SEVERAL.of(ORDERS) == InputSpan(1207, 1206, Anchor(1206, 900, b"abcdefgh"))
    assert SEVERAL.of(RETURNS) == InputSpan(0, -1)
    assert SEVERAL.of(TopicPartition("orders", 3)) is None
    SEVERAL.require_inputs((ORDERS, PAYMENTS, RETURNS))


def test_each_batch_of_one_input_keeps_what_was_reached_in_the_others() -> None:
    inputs = (ORDERS, PAYMENTS, RETURNS)
    first = PositionRecord(0, 4, (0, 1)).among(inputs, ORDERS, None)
    assert [first.of(one) for one in inputs] == [InputSpan(0, 4), None, None]
    anchor = Anchor(7, 1000, b"12345678")
    second = PositionRecord(0, 7, (0, 1), anchor=anchor).among(inputs, RETURNS, first)
    assert [second.of(one) for one in inputs] == [InputSpan(5, 4), None, InputSpan(0, 7, anchor)]
    third = PositionRecord(5, 5, (0, 1)).among(inputs, ORDERS, second)
    assert [third.of(one) for one in inputs] == [InputSpan(5, 5), None, InputSpan(8, 7, anchor)]
    assert decode(PositionRecord, encode(third)) == third


@pytest.mark.parametrize(
    ("position", "inputs"),
    [
        (POSITION, (ORDERS, PAYMENTS)),
        (SEVERAL, (PAYMENTS,)),
        (SEVERAL, (ORDERS, PAYMENTS)),
        (msgspec.structs.replace(SEVERAL, others=(OtherInput(PAYMENTS, 3),)), (ORDERS, PAYMENTS)),
    ],
    ids=["one is not named", "the table has one", "one too many", "one named twice"],
)
def test_a_position_in_other_inputs_than_the_tables_is_refused(
    position: PositionRecord, inputs: tuple[TopicPartition, ...]
) -> None:
    with pytest.raises(MalformedRecord, match="the table reads "):
        position.require_inputs(inputs)


@pytest.mark.parametrize(
    "members",
    [
        {"input": ["orders", 2]},
        {"others": [{"input": ["orders", 2], "to": 3}]},
        {"v": 2},
        {"v": 2, "others": [{"input": ["orders", 2], "to": 3}]},
    ],
)
def test_a_version_without_the_members_that_it_has_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(MalformedRecord, match="not a PositionRecord"):
        decode(PositionRecord, encode({"from": 1, "to": 2, "epoch": [0, 1], **members}))
