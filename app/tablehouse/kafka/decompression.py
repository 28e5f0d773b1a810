"""Decompressing record batches within a bound.

A broker bounds how large a batch is while it is compressed, and a megabyte can become a gigabyte. aiokafka decompresses
it whatever that is. The functions here take the place of its own, for all consumers of the process, and raise
DecompressedTooLarge instead.
"""

import gzip
import hashlib
import struct
import sys
from collections.abc import Callable, Iterator
from io import BytesIO

import cramjam
from aiokafka.codec import _detect_xerial_stream
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record import default_records, legacy_records

#: The most bytes that a batch may have when it is decompressed. That is 256 times the default of a topic's
#: max.message.bytes, and far more than producers put into a batch. It is no setting, and no part of the memory budget:
#: whether a batch can be read has to be the same for all workers of a group and for `tablehouse skip`, which passes
#: over no batch that it can read.
MAX_BATCH_BYTES = 256 << 20

#: The room for a decompressed batch: the least in bytes, the first as a multiple of the batch's own bytes, and the
#: factor by which room that was too small grows.
_MIN_ROOM, _FIRST_FACTOR, _GROWTH = 64 * 1024, 8, 4

#: Bytes that gzip decompresses in one go.
_PORTION = 1 << 20

#: What cramjam says when there is too little room.
_NO_ROOM = "failed to write whole buffer"

_XERIAL_HEADER_BYTES = 16
_BLOCK_LENGTH = struct.Struct(">i")

#: How many batches that were too large are remembered. One that keeps a partition is tried again every second.
_REMEMBERED = 64


class DecompressedTooLarge(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """A batch has more than MAX_BATCH_BYTES when it is decompressed."""

    def __init__(self) -> None:
        super().__init__(f"decompressed it has more than {MAX_BATCH_BYTES:,} bytes, the most that a batch may have")


_Decode = Callable[[bytes], bytes | bytearray]


class Decompression:
    """Decompresses batches; `total` counts the bytes that they became."""

    def __init__(self) -> None:
        self.total = 0
        #: The digests of batches that were too large, by their length and what was too large.
        self._too_large: dict[tuple[int, int], bytes] = {}

    def bounded(self, decode: _Decode) -> Callable[[bytes | memoryview], bytes | bytearray]:
        """Return what decompresses a batch with `decode`, unless it was too large before."""

        def decompress(data: bytes | memoryview) -> bytes | bytearray:
            data, known = bytes(data), (len(data), MAX_BATCH_BYTES)
            if known in self._too_large and self._too_large[known] == _digest(data):
                raise DecompressedTooLarge
            try:
                found = decode(data)
            except DecompressedTooLarge:
                if len(self._too_large) == _REMEMBERED:
                    del self._too_large[next(iter(self._too_large))]
                self._too_large[known] = _digest(data)
                raise
            self.total += len(found)
            return found

        return decompress


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _gunzip(data: bytes) -> bytes:
    parts, size = [], 0
    with gzip.GzipFile(fileobj=BytesIO(data), mode="r") as opened:
        while part := opened.read(_PORTION):
            size += len(part)
            if size > MAX_BATCH_BYTES:
                raise DecompressedTooLarge
            parts.append(part)
    return b"".join(parts)


def _unsnap(data: bytes) -> bytes:
    blocks = list(_xerial_blocks(data)) if _detect_xerial_stream(data) else [data]
    # Each says at its beginning how many bytes it becomes, and becomes no more.
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > MAX_BATCH_BYTES:
        raise DecompressedTooLarge
    return b"".join([bytes(cramjam.snappy.decompress_raw(block)) for block in blocks])


def _xerial_blocks(data: bytes) -> Iterator[bytes]:
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        start = at + _BLOCK_LENGTH.size
        at = start + _BLOCK_LENGTH.unpack_from(data, at)[0]
        if not start <= at <= len(data):
            raise CorruptRecordException("a block of its snappy stream has a wrong length")
        yield data[start:at]


def _decode_into(decompress_into: Callable[[bytes, bytearray], int]) -> _Decode:
    """Return a decoder of what does not always say how many bytes it becomes."""

    def decode(data: bytes) -> bytearray:
        room = min(MAX_BATCH_BYTES, max(_MIN_ROOM, _FIRST_FACTOR * len(data)))
        while True:
            out = bytearray(room)
            try:
                size = decompress_into(data, out)
            except cramjam.DecompressionError as error:
                if str(error) != _NO_ROOM:
                    raise
            else:
                del out[size:]
                return out
            if room == MAX_BATCH_BYTES:
                raise DecompressedTooLarge
            room = min(MAX_BATCH_BYTES, room * _GROWTH)

    return decode


DECOMPRESSION = Decompression()

_CODECS: dict[str, _Decode] = {
    "gzip_decode": _gunzip,
    "snappy_decode": _unsnap,
    "lz4_decode": _decode_into(cramjam.lz4.decompress_into),
    "zstd_decode": _decode_into(cramjam.zstd.decompress_into),
}

#: aiokafka's parsers of both formats, in Python and, where they are there, in C.
_PARSERS = (
    default_records,
    legacy_records,
    sys.modules.get("aiokafka.record._crecords.default_records"),
    sys.modules.get("aiokafka.record._crecords.legacy_records"),
)

for _name, _decode in _CODECS.items():
    for _parser in _PARSERS:
        if hasattr(_parser, _name):
            setattr(_parser, _name, DECOMPRESSION.bounded(_decode))
