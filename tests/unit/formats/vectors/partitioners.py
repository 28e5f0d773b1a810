"""Prints where librdkafka puts the keys of keys.txt, for README.md beside it."""

import ctypes
import json
from pathlib import Path

import confluent_kafka

(LIBRARY,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka-*")
librdkafka = ctypes.CDLL(str(LIBRARY))
keys = [bytes.fromhex(line) for line in Path("keys.txt").read_text().splitlines()]


def places_of(name: str) -> list[list[int]]:
    """Return the partitions of 12 and of 256 of each key; the topic is not looked at by partitioners that hash."""
    of = getattr(librdkafka, f"rd_kafka_msg_partitioner_{name}")
    return [[of(None, key, ctypes.c_size_t(len(key)), count, None, None) for count in (12, 256)] for key in keys]


print(json.dumps({f"librdkafka {name}": places_of(name) for name in ("consistent", "murmur2", "fnv1a")}))  # noqa: T201
