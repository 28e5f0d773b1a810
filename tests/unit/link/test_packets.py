"""Packets: whatever pieces they arrive in, and whatever else arrives."""

import contextlib
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.link.packets import (
    BYTES_PER_PACKET,
    MAX_FIRST_PACKET_BYTES,
    MAX_PACKET_BYTES,
    MESSAGES_PER_PACKET,
    BadPacket,
    PacketReader,
    Seal,
    packed,
)

KEY = b"k" * 32
_messages = st.lists(st.binary(max_size=40), max_size=30)


def encoded(messages: list[bytes]) -> list[bytes]:
    return [msgspec.msgpack.encode(message) for message in messages]


def read(reader: PacketReader, data: bytes) -> list[bytes]:
    return [message for payload in reader.feed(data) for message in msgspec.msgpack.decode(payload, type=list[bytes])]


@given(st.lists(_messages, max_size=5), st.sampled_from([None, KEY]), st.randoms(use_true_random=False))
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    rounds: list[list[bytes]], key: bytes | None, cuts: random.Random
) -> None:
    sent, reader = Seal(key), PacketReader(Seal(key))
    stream = b"".join(piece for messages in rounds for piece in packed(encoded(messages), sent))
    out: list[bytes] = []
    while stream:
        size = cuts.randint(1, len(stream))
        out += read(reader, stream[:size])
        stream = stream[size:]
    assert out == [message for messages in rounds for message in messages]
    assert reader.held == 0


def test_a_packet_has_a_bound_of_messages_and_of_bytes() -> None:
    assert len(packed(encoded([b""] * (MESSAGES_PER_PACKET + 1)), Seal(None))) == 2
    assert len(packed(encoded([b"x" * BYTES_PER_PACKET] * 3), Seal(None))) == 3


@pytest.mark.parametrize("change", ["flip", "repeat", "leave out", "of another link"])
def test_a_packet_that_was_tampered_with_ends_the_link(change: str) -> None:
    sent, reader = Seal(KEY), PacketReader(Seal(KEY))
    first, second = (packed(encoded([message]), sent)[0] for message in (b"1", b"2"))
    if change == "of another link":
        first = packed(encoded([b"1"]), Seal(b"j" * 32))[0]
    stream = {"flip": first[:-1] + bytes((first[-1] ^ 1,)), "repeat": first + first, "leave out": second}
    with pytest.raises(BadPacket, match="proof"):
        list(reader.feed(stream.get(change, first)))


@pytest.mark.parametrize("begun", [False, True])
def test_a_length_beyond_the_bound_is_refused_before_anything_is_kept(*, begun: bool) -> None:
    reader = PacketReader(Seal(None))
    if begun:
        assert read(reader, packed(encoded([b"1"]), Seal(None))[0]) == [b"1"]
    most = MAX_PACKET_BYTES if begun else MAX_FIRST_PACKET_BYTES
    with pytest.raises(BadPacket, match="at most"):
        list(reader.feed((most + 1).to_bytes(4, "big") + b"x"))
    assert reader.held <= 5


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else_and_is_not_hoarded(garbage: bytes) -> None:
    reader = PacketReader(Seal(KEY))
    with contextlib.suppress(BadPacket):
        list(reader.feed(garbage))
    assert reader.held <= len(garbage)
