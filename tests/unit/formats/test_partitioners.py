import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import pytest
from aiokafka.partitioner import DefaultPartitioner

from tablehouse.catalog.spec import PartitionerName
from tablehouse.formats.partitioners import fitting, partition_of, partitions_of, places_empty_keys

# Key, then its partition of 12 and of 256 with murmur2, then of 12 and of 256 with crc32.
# murmur2: printed by toPositive(murmur2(key)) % partitions of org.apache.kafka.common.utils.Utils of
# kafka-clients 4.3.1, and equal to rd_kafka_msg_partitioner_murmur2 of librdkafka. crc32: returned by
# rd_kafka_msg_partitioner_consistent of librdkafka 2.16.0, the library of the confluent-kafka 2.16.1 wheel.
VECTORS = [
    (b"", 9, 217, 0, 0),
    (b"a", 4, 124, 3, 67),
    (b"ab", 2, 42, 5, 109),
    (b"abc", 3, 27, 6, 194),
    (b"abcd", 8, 244, 1, 17),
    (b"21", 0, 236, 4, 180),
    (b"foobar", 6, 190, 5, 149),
    (b"a-little-bit-long-string", 8, 160, 6, 98),
    (b"a-little-bit-longer-string", 11, 195, 2, 42),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 5, 205, 1, 33),
    (b"\x00", 8, 188, 1, 141),
    (b"\xff\x00\xff", 0, 196, 2, 114),
    (b"\x80\x81\x82\x83\x84", 9, 89, 6, 142),
    (b"\x00\x00\x00*", 0, 184, 6, 202),
    (b"\xff\xff\xff\xff", 5, 165, 3, 255),
    (b"\x00\x00\x00\x00\x00\x00\x00\x00", 11, 3, 1, 105),
    (b"\xff\xff\xff\xff\xff\xff\xff\xff", 5, 189, 4, 28),
    (b"\x80\x00\x00\x00\x00\x00\x00\x00", 4, 120, 3, 179),
    (b"123e4567-e89b-12d3-a456-426614174000", 8, 200, 2, 182),
    (b"Z\xc3\xbcrich", 1, 49, 6, 62),
    (b"\xe6\x9d\xb1\xe4\xba\xac", 7, 43, 3, 239),
    (b'{"a":1,"b":"x"}', 10, 14, 0, 84),
    (b"N14228", 8, 160, 10, 110),
    (b".", 5, 85, 2, 66),
]

PARTITIONERS: tuple[PartitionerName, ...] = get_args(PartitionerName)

#: Where clients put the keys of vectors/keys.txt, of 12 and of 256 partitions; vectors/README.md says how it was made.
FOLDER = Path(__file__).parent / "vectors"
PLACES: Mapping[str, Sequence[Sequence[int]]] = json.loads((FOLDER / "partitioners.json").read_text())
KEYS = [bytes.fromhex(line) for line in (FOLDER / "keys.txt").read_text().splitlines()]

#: Which partitioner of ours each of these is.
CLIENTS: Mapping[str, PartitionerName] = {
    "franz-go SaramaCompatHasher": "fnv1a",
    "franz-go StickyKeyPartitioner": "murmur2",
    "franz-go UniformBytesPartitioner, the default": "murmur2",
    "kafka-go CRC32Balancer, Consistent": "crc32",
    "kafka-go Hash": "fnv1a",
    "kafka-go Murmur2Balancer": "murmur2",
    "kafka-go ReferenceHash": "fnv1a_reference",
    "kafkajs DefaultPartitioner": "murmur2",
    "kafkajs LegacyPartitioner": "kafkajs_legacy",
    "librdkafka consistent": "crc32",
    "librdkafka fnv1a": "fnv1a",
    "librdkafka murmur2": "murmur2",
    "sarama NewConsistentCRCHashPartitioner": "crc32",
    "sarama NewCustomHashPartitioner, as goka": "fnv1a",
    "sarama NewHashPartitioner": "fnv1a",
    "sarama NewMurmur2Partitioner": "murmur2",
    "sarama NewReferenceHashPartitioner": "fnv1a_reference",
}


def test_each_client_is_one_of_the_partitioners_and_each_partitioner_is_a_client_s() -> None:
    assert set(CLIENTS) == set(PLACES)
    assert set(CLIENTS.values()) == set(PARTITIONERS)


@pytest.mark.parametrize("client", sorted(PLACES))
def test_a_key_is_looked_for_where_the_client_puts_it(client: str) -> None:
    partitioner = CLIENTS[client]
    of_12, of_256 = partitions_of(partitioner, KEYS, 12), partitions_of(partitioner, KEYS, 256)
    assert [list(pair) for pair in zip(of_12, of_256, strict=True)] == PLACES[client]


def test_murmur2_puts_a_key_where_aiokafka_does() -> None:
    everywhere = list(range(12))
    assert partitions_of("murmur2", KEYS, 12) == [DefaultPartitioner()(key, everywhere, everywhere) for key in KEYS]


def test_the_partitioners_that_fit_a_key_are_those_that_put_it_there() -> None:
    assert fitting(b"a", 4, 12) == {"murmur2"}
    assert fitting(b"a", 3, 12) == {"crc32"}
    assert fitting(b"a", 11, 12) == frozenset()
    assert fitting(b"a", 0, 1) == set(PARTITIONERS)


@pytest.mark.parametrize(("key", "of_12", "of_256", "_crc_of_12", "_crc_of_256"), VECTORS)
def test_murmur2_puts_a_key_where_the_java_client_does(
    key: bytes, of_12: int, of_256: int, _crc_of_12: int, _crc_of_256: int
) -> None:
    assert partition_of("murmur2", key, 12) == of_12
    assert partition_of("murmur2", key, 256) == of_256


@pytest.mark.parametrize(("key", "_murmur_of_12", "_murmur_of_256", "of_12", "of_256"), VECTORS)
def test_crc32_puts_a_key_where_librdkafka_does(
    key: bytes, _murmur_of_12: int, _murmur_of_256: int, of_12: int, of_256: int
) -> None:
    assert partition_of("crc32", key, 12) == of_12
    assert partition_of("crc32", key, 256) == of_256


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_a_batch_of_keys_goes_where_each_goes_alone(partitioner: PartitionerName) -> None:
    keys = [vector[0] for vector in VECTORS]
    assert partitions_of(partitioner, keys, 7) == [partition_of(partitioner, key, 7) for key in keys]


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_one_partition_takes_every_key(partitioner: PartitionerName) -> None:
    assert set(partitions_of(partitioner, [vector[0] for vector in VECTORS], 1)) == {0}


def test_librdkafka_spreads_empty_keys_and_no_other_client_does() -> None:
    assert [name for name in PARTITIONERS if not places_empty_keys(name)] == ["crc32"]
