"""How messages travel on a link: in packets, each with as many messages as were at hand.

    length    u32      bytes of the rest, big-endian
    MAC       16 B     only where the workers share a secret: over the packet's number on the link, and the payload
    payload            an array of MessagePack with the messages

The MAC is keyed BLAKE2b with a key of this link and direction (handshake.py), so no packet can be changed, left out,
repeated, or be of another link.
"""

import hmac
import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b

#: The largest packet: far above the largest record that brokers take, and one row is never divided.
MAX_PACKET_BYTES = 256 << 20

#: The largest packet of a worker that has not proven itself yet.
MAX_FIRST_PACKET_BYTES = 64 << 10

#: A packet takes no more messages once it has this many, or as many bytes.
MESSAGES_PER_PACKET = 512
BYTES_PER_PACKET = 256 << 10

_LENGTH = struct.Struct(">I")
_MAC_SIZE = 16
_COUNT = struct.Struct(">BI")
_ARRAY_32 = 0xDD


class BadPacket(Exception):
    """What arrived is no packet of this link."""


class Seal:
    """Makes the MACs of one direction of a link, in the order of its packets; without a key there are none."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key
        self._number = 0

    @property
    def size(self) -> int:
        """Bytes of a MAC."""
        return 0 if self._key is None else _MAC_SIZE

    def next(self, payload: bytes) -> bytes:
        """Return the MAC of the next packet."""
        if self._key is None:
            return b""
        self._number += 1
        return blake2b(
            payload, key=self._key, digest_size=_MAC_SIZE, salt=self._number.to_bytes(blake2b.SALT_SIZE, "big")
        ).digest()


def packed(messages: Sequence[bytes], seal: Seal) -> list[bytes]:
    """Return the packets with some encoded messages, in pieces to be written one after the other."""
    pieces: list[bytes] = []
    start = 0
    while start < len(messages):
        end, size = start, 0
        while end < len(messages) and end - start < MESSAGES_PER_PACKET and size < BYTES_PER_PACKET:
            size += len(messages[end])
            end += 1
        payload = _COUNT.pack(_ARRAY_32, end - start) + b"".join(messages[start:end])
        mac = seal.next(payload)
        pieces.append(_LENGTH.pack(len(mac) + len(payload)) + mac + payload)
        start = end
    return pieces


class PacketReader:
    """Finds the packets in what arrives on a link, and checks them; first_limit is the most bytes of the first."""

    def __init__(self, seal: Seal, first_limit: int = MAX_FIRST_PACKET_BYTES) -> None:
        self._seal = seal
        self._buffer = bytearray()
        self._limit = first_limit

    @property
    def held(self) -> int:
        """Bytes of a packet that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the payload of each packet that is complete now; raises BadPacket, after which nothing is to be fed."""
        buffer = self._buffer
        if not buffer and len(data) >= _LENGTH.size and _LENGTH.unpack_from(data)[0] == len(data) - _LENGTH.size:
            # Most arrive alone and whole.
            self._check_length(len(data) - _LENGTH.size)
            yield self._opened(data[_LENGTH.size :])
            return
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                [length] = _LENGTH.unpack_from(buffer, start)
                self._check_length(length)
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    return
                packet = bytes(buffer[start + _LENGTH.size : end])
                start = end
                yield self._opened(packet)
        finally:
            del buffer[:start]

    def _check_length(self, length: int) -> None:
        if length > self._limit:
            raise BadPacket(f"a packet of {length} bytes, at most {self._limit} are taken")

    def _opened(self, packet: bytes) -> bytes:
        size = self._seal.size
        payload = packet[size:]
        if size and not hmac.compare_digest(packet[:size], self._seal.next(payload)):
            raise BadPacket("a packet without a proof of the secret")
        self._limit = MAX_PACKET_BYTES
        return payload
