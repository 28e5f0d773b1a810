"""Decompresses record batches up to a size limit.

A broker limits the compressed size of a batch, and a megabyte can expand to a gigabyte. aiokafka decompresses it
without a limit. The functions here replace aiokafka's for all consumers of the process, and raise DecompressedTooLarge
instead.
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

#: Maximum size of a decompressed batch in bytes. That is 256 times the default of a topic's max.message.bytes, and far
#: more than producers put into a batch. It is not a setting and not part of the memory budget: all workers of a group
#: and `tablehouse skip`, which refuses to skip a readable batch, must agree on which batches are readable.
MAX_BATCH_BYTES = 256 << 20

#: The output buffer of a decompressed batch: its minimum size in bytes, its first size as a multiple of the compressed
#: size, and the factor by which it grows if it was too small.
_MIN_ROOM, _FIRST_FACTOR, _GROWTH = 64 * 1024, 8, 4

#: Bytes that gzip decompresses per call.
_PORTION = 1 << 20

#: cramjam's error message for an output buffer that is too small.
_NO_ROOM = "failed to write whole buffer"

_XERIAL_HEADER_BYTES = 16
_BLOCK_LENGTH = struct.Struct(">i")

#: Maximum number of oversized batches that are remembered. One that blocks a partition is retried every second.
_MAX_REMEMBERED = 64


class DecompressedTooLarge(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """A batch is larger than MAX_BATCH_BYTES after decompression."""

    def __init__(self) -> None:
        super().__init__(f"decompressed, it exceeds the limit of {MAX_BATCH_BYTES:,} bytes per batch")


_Decode = Callable[[bytes], bytes | bytearray]


class Decompression:
    """Decompresses batches; `total` counts the decompressed bytes."""

    def __init__(self) -> None:
        self.total = 0
        #: Digests of oversized batches, by their length and the limit that they exceeded.
        self._too_large: dict[tuple[int, int], bytes] = {}

    def bounded(self, decode: _Decode) -> Callable[[bytes | memoryview], bytes | bytearray]:
        """Return a function that decompresses a batch with `decode` unless it is known to be oversized."""

        def decompress(data: bytes | memoryview) -> bytes | bytearray:
            data, known = bytes(data), (len(data), MAX_BATCH_BYTES)
            if known in self._too_large and self._too_large[known] == _digest(data):
                raise DecompressedTooLarge
            try:
                found = decode(data)
            except DecompressedTooLarge:
                if len(self._too_large) == _MAX_REMEMBERED:
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
    # Each block starts with its decompressed length, and cannot exceed it.
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > MAX_BATCH_BYTES:
        raise DecompressedTooLarge
    return b"".join([bytes(cramjam.snappy.decompress_raw(block)) for block in blocks])


def _xerial_blocks(data: bytes) -> Iterator[bytes]:
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        start = at + _BLOCK_LENGTH.size
        at = start + _BLOCK_LENGTH.unpack_from(data, at)[0]
        if not start <= at <= len(data):
            raise CorruptRecordException("a block of its snappy stream has an invalid length")
        yield data[start:at]


def _decode_into(decompress_into: Callable[[bytes, bytearray], int]) -> _Decode:
    """Return a decoder for formats that do not always state the decompressed length."""

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

#: aiokafka's parsers of both formats, in Python and, if available, in C.
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
