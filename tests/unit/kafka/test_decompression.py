# ruff: noqa: SLF001 - how many are remembered
"""Batches that are much larger than they look, in every codec and format."""

import gzip
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import cramjam
import pytest
from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from aiokafka.record import default_records

from tablehouse.kafka import decompressed, decompression
from tablehouse.kafka.decompression import DECOMPRESSION, DecompressedTooLarge
from tablehouse.kafka.record_batches import UnreadableBatch
from tests.support.batches import (
    ATTRIBUTES_AT,
    RECORDS_AT,
    batch_of,
    fetched,
    old_batch,
    read_through,
    renamed,
    with_crc,
)

GZIP, SNAPPY, LZ4, ZSTD = CODECS = (1, 2, 3, 4)
NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}

KIB = 1024
LIMIT = 256 * KIB


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", LIMIT)


def decode(name: str, data: bytes) -> bytes:
    """Decompress as aiokafka's parsers do."""
    function: Callable[[bytes], Any] = getattr(default_records, f"{name}_decode")
    return bytes(function(data))


def encode(name: str, data: bytes) -> bytes:
    function: Callable[[bytes], bytes] = getattr(codec, f"{name}_encode")
    return function(data)


def outcome(decode: Callable[[], bytes]) -> bytes | str:
    try:
        return decode()
    except DecompressedTooLarge:
        raise
    except Exception:  # noqa: BLE001 - decompressing raises what it likes
        return "refused"


def offsets(records: list[Any]) -> list[int]:
    return [record.offset for record in records]


def zeros(number: int, size: int, codec: int) -> bytes:
    """Return a batch of one record, which has zeros for a value."""
    return batch_of((0, b"key", bytes(size), ()), base=number, codec=codec)


@pytest.mark.parametrize("name", NAMES.values())
@pytest.mark.parametrize("size", [1, 100, 70 * KIB, LIMIT])
@pytest.mark.usefixtures("limit")
def test_what_is_within_the_limit_is_decompressed(name: str, size: int) -> None:
    data = bytes(number * number % 251 for number in range(size))
    assert decode(name, encode(name, data)) == data
    assert decode(name, encode(name, bytes(size))) == bytes(size)


@pytest.mark.parametrize("name", NAMES.values())
@pytest.mark.parametrize("size", [LIMIT + 1, 100 * LIMIT])
@pytest.mark.usefixtures("limit")
def test_what_is_beyond_it_is_refused_each_time(name: str, size: int) -> None:
    bomb, before = encode(name, bytes(size)), DECOMPRESSION.total
    for _ in range(3):
        with pytest.raises(DecompressedTooLarge, match="exceeds the limit of 262,144 bytes per batch"):
            decode(name, bomb)
    assert DECOMPRESSION.total == before


@pytest.mark.usefixtures("limit")
def test_a_batch_that_is_as_long_as_one_that_was_too_large_is_another_one() -> None:
    bomb = encode("gzip", bytes(LIMIT + 1))
    with pytest.raises(DecompressedTooLarge):
        decode("gzip", bomb)
    assert decode("gzip", encode("gzip", b"small").ljust(len(bomb), b"\0")) == b"small"


@pytest.mark.usefixtures("limit")
def test_more_batches_that_are_too_large_than_are_remembered_are_refused_all_the_same() -> None:
    bombs = [
        encode("gzip", bytes(LIMIT + 1 + 50 * KIB * number)) for number in range(2 * decompression._MAX_REMEMBERED)
    ]
    for bomb in (*bombs, *bombs):
        with pytest.raises(DecompressedTooLarge):
            decode("gzip", bomb)


@pytest.mark.parametrize("name", NAMES.values())
@pytest.mark.usefixtures("limit")
def test_what_is_cut_off_or_damaged_is_refused_as_that(name: str) -> None:
    data = encode(name, bytes(number * number % 251 for number in range(70 * KIB)))
    original: Callable[[bytes], bytes] = getattr(codec, f"{name}_decode")
    for damaged in (data[:-12], data[: len(data) // 2], data[:20] + b"\xff" * 40 + data[60:], b""):
        assert outcome(partial(decode, name, damaged)) == outcome(partial(original, damaged))


@pytest.mark.usefixtures("limit")
def test_streams_of_several_parts_are_counted_as_a_whole() -> None:
    half = bytes(LIMIT // 2)
    for name in ("gzip", "zstd"):
        part = encode(name, half)
        assert decode(name, part * 2) == half * 2
        with pytest.raises(DecompressedTooLarge):
            decode(name, part * 3)
    assert decode("gzip", gzip.compress(b"a") + bytes(100)) == b"a"


@pytest.mark.usefixtures("limit")
def test_the_blocks_of_a_snappy_stream_are_counted_together_and_none_of_them_goes_back() -> None:
    header = encode("snappy", b"")[:16]
    block = bytes(cramjam.snappy.compress_raw(bytes(LIMIT // 2)))
    framed = struct.pack(">i", len(block)) + block
    assert decode("snappy", header + framed * 2) == bytes(LIMIT)
    with pytest.raises(DecompressedTooLarge):
        decode("snappy", header + framed * 3)
    # One that says of itself that it has more than it has.
    with pytest.raises(DecompressedTooLarge):
        decode("snappy", b"\xff\xff\xff\x7f" + block)
    for length in (-4, -(1 << 31), len(block) + 1):
        with pytest.raises(CorruptRecordException, match="invalid length"):
            decode("snappy", header + struct.pack(">i", length) + block)


_PEAK = """
import resource, sys
from tablehouse.kafka import raw_records
from tablehouse.kafka.decompression import MAX_BATCH_BYTES, DecompressedTooLarge
from aiokafka.record import default_records

data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    getattr(default_records, sys.argv[1] + "_decode")(data)
except DecompressedTooLarge:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / MAX_BATCH_BYTES)
"""


@pytest.mark.parametrize("name", NAMES.values())
def test_refusing_takes_no_more_memory_than_the_limit(name: str) -> None:
    # Twice as much would be more than the limit and a buffer of a quarter of it.
    bomb = encode(name, bytes(2 * decompression.MAX_BATCH_BYTES))
    done = subprocess.run([sys.executable, "-c", _PEAK, name], input=bomb, capture_output=True, check=True)
    assert float(done.stdout) < 1.5


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("most", [1, 10])
@pytest.mark.usefixtures("limit")
def test_a_batch_that_is_too_large_cannot_be_read_and_its_neighbours_can(codec: int, most: int) -> None:
    bomb = batch_of(*((number, b"key", bytes(LIMIT), ()) for number in range(3)), base=2, codec=codec)
    log = [zeros(0, 10, codec), zeros(1, LIMIT // 2, codec), bomb, zeros(5, 10, codec)]
    records, failures = read_through(log, most)
    assert offsets(records) == [0, 1, 5]
    assert [(failure.first, failure.last) for failure in failures] == [(2, 4)]
    assert str(failures[0]).endswith(
        "offsets 2 to 4 of topic[0] cannot be read: DecompressedTooLarge: decompressed, it exceeds the limit of "
        "262,144 bytes per batch"
    )


def compressed(batch: bytes, name: str) -> bytes:
    """Return a batch that is not compressed as one that is."""
    head, records = bytearray(batch[:RECORDS_AT]), encode(name, batch[RECORDS_AT:])
    head[ATTRIBUTES_AT + 1] |= {found: number for number, found in NAMES.items()}[name]
    head[8:12] = struct.pack(">i", RECORDS_AT - 12 + len(records))
    return with_crc(bytes(head) + records)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY])
@pytest.mark.parametrize("magic", [0, 1])
def test_so_can_messages_of_old_formats(monkeypatch: pytest.MonkeyPatch, magic: int, codec: int) -> None:
    wrapper = old_batch(magic, codec, 1, 30)
    monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", 300)
    with pytest.raises(UnreadableBatch, match="exceeds the limit of 300 bytes") as refused:
        fetched(wrapper, offset=1).take(50)
    assert refused.value.last == 30
    assert offsets(fetched(old_batch(magic, codec, 31, 3), offset=31).take(50)) == [31, 32, 33]


# What several partitions hold together


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompressed, "MIN_COUNTED_BYTES", 10 * KIB)
    monkeypatch.setattr(decompressed, "MAX_HELD_BYTES", 70 * KIB)


def large(codec: int, base: int = 0) -> bytes:
    """Return a compressed batch of ten records of 3 KiB each."""
    return batch_of(*((number, b"key", bytes(3 * KIB), ()) for number in range(10)), base=base, codec=codec)


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("codec", CODECS)
def test_of_partitions_in_large_batches_those_whose_was_used_longest_ago_are_fetched_again(codec: int) -> None:
    data = large(codec) + zeros(10, 10, codec)
    one, two, three, four = (fetched(data) for _ in range(4))
    for partition in (one, two, three):
        assert offsets(partition.take(3)) == [0, 1, 2]
    assert offsets(one.take(1)) == [3]
    assert offsets(four.take(3)) == [0, 1, 2]
    assert (two.take(20), two.next_fetch_offset) == ([], 3)
    for partition, position in ((one, 4), (three, 3), (four, 3)):
        assert offsets(partition.take(20)) == list(range(position, 11))
    # Nothing is lost: what was not taken is fetched from there on.
    assert offsets(fetched(data, offset=3).take(20)) == list(range(3, 11))


@pytest.mark.usefixtures("held")
def test_what_was_taken_as_a_whole_or_thrown_away_makes_nothing_be_fetched_again() -> None:
    first = fetched(large(ZSTD) + zeros(10, 10, ZSTD))
    assert offsets(first.take(3)) == [0, 1, 2]
    for _ in range(10):
        assert len(fetched(large(LZ4)).take(20)) == 10
        assert len(fetched(large(LZ4)).take(1)) == 1
    other = fetched(large(GZIP))
    assert len(other.take(1)) == 1
    assert offsets(first.take(20)) == list(range(3, 11))


@pytest.mark.usefixtures("held")
def test_small_batches_and_those_that_are_not_compressed_are_never_fetched_again() -> None:
    first, second = fetched(large(ZSTD)), fetched(large(ZSTD))
    assert offsets(first.take(1)) == offsets(second.take(1)) == [0]
    others = [fetched(large(0) + zeros(10, 10, GZIP)) for _ in range(10)]
    assert [offsets(other.take(10)) for other in others] == [list(range(10))] * 10
    assert [offsets(other.take(1)) for other in others] == [[10]] * 10
    assert offsets(first.take(20)) == offsets(second.take(20)) == list(range(1, 10))


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("name", NAMES.values())
def test_a_large_batch_that_is_read_record_by_record_is_not_given_up_for_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompressed, "MAX_HELD_BYTES", 20 * KIB)
    content = ((number, b"key", bytes(3 * KIB), [(f"nam{number}", b"")]) for number in range(10))
    spoilt = compressed(renamed(batch_of(*content), b"nam5", b"nam\xff"), name)
    records = fetched(spoilt)
    assert offsets(records.take(2)) == [0, 1]
    assert offsets(records.take(5)) == [2, 3, 4, 5, 6]
    assert offsets(records.take(5)) == [7, 8, 9]


@pytest.mark.usefixtures("held")
def test_one_that_is_given_up_behind_a_batch_that_cannot_be_read_still_says_so() -> None:
    damaged = bytearray(large(GZIP, base=10))
    damaged[-1] ^= 1
    one = fetched(large(ZSTD) + bytes(damaged))
    assert offsets(one.take(20)) == list(range(10))
    others = [fetched(large(ZSTD)) for _ in range(5)]
    assert [offsets(other.take(1)) for other in others] == [[0]] * 5
    with pytest.raises(UnreadableBatch, match="offsets 10 to 19"):
        one.take(20)
