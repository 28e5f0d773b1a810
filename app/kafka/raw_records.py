"""Records as aiokafka's parser makes them, in place of the `ConsumerRecord` that it copies each of them into.

The copy has eleven fields, of which five are used here, and took a quarter of the CPU of a restore (bench/README.md). A
consumer asks for raw records with `key_deserializer=raw`; any other one of the process gets what aiokafka documents.
"""

from typing import Any

from aiokafka.consumer import fetcher


def raw(key: bytes) -> bytes:
    """Mark a consumer as one for raw records; never called."""
    raise AssertionError(f"the key {key!r} is to be left as it is")


_documented = fetcher.PartitionRecords._consumer_record


def _raw_or_documented(records: Any, partition: Any, record: Any) -> Any:
    return record if records._key_deserializer is raw else _documented(records, partition, record)


fetcher.PartitionRecords._consumer_record = _raw_or_documented
