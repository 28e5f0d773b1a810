"""Records as Confluent's own Python client makes and reads them."""

import asyncio
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

_DEADLINE = 180.0  # seconds

#: By default the client asks for subjects' names at an address that only Confluent's own registry has.
SUBJECTS: dict[str, Any] = {"subject.name.strategy": topic_subject_name_strategy}


class Confluent:
    """Writes to and reads from one topic; `partitioner` is librdkafka's name, Java's murmur2 unless a test says so."""

    def __init__(
        self, bootstrap: str, registry: SchemaRegistryClient, topic: str, *, partitioner: str = "murmur2_random"
    ) -> None:
        self.registry = registry
        self.topic = topic
        self._bootstrap = bootstrap
        self._serialisers: dict[str, AvroSerializer] = {}
        self._deserialisers: dict[str | None, AvroDeserializer] = {}
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "partitioner": partitioner, "enable.idempotence": True}
        )

    def register(self, text: str, kind: str = "AVRO", *, part: str = "value", compatibility: str = "") -> int:
        """Register a schema for the topic's values or keys, and return the id."""
        subject = f"{self.topic}-{part}"
        if compatibility:
            self.registry.set_compatibility(subject, compatibility)
        return self.registry.register_schema(subject, Schema(text, kind))

    def avro(self, value: Any, text: str, part: MessageField = MessageField.VALUE) -> bytes:
        """Return what Confluent's serialiser makes of a value, having registered the schema."""
        if text not in self._serialisers:
            self._serialisers[text] = AvroSerializer(self.registry, text, conf=SUBJECTS)
        made = self._serialisers[text](value, SerializationContext(self.topic, part))
        assert made is not None
        return made

    def read_avro(self, value: bytes, text: str | None = None) -> Any:
        """Return what Confluent's deserialiser reads, as the schema `text` if given: the oracle."""
        if text not in self._deserialisers:
            self._deserialisers[text] = AvroDeserializer(self.registry, text, conf=SUBJECTS)
        return self._deserialisers[text](value, SerializationContext(self.topic, MessageField.VALUE))

    async def produce(self, *records: tuple[bytes | str, bytes | None]) -> list[tuple[int, int]]:
        """Produce records of a key and a value in order; return each one's partition and offset, acknowledged."""
        places: dict[int, tuple[int, int]] = {}
        failed: list[str] = []

        def noting(number: int) -> Callable[[object, Message], None]:
            def produced(error: object, message: Message) -> None:
                partition, offset = message.partition(), message.offset()
                if error is not None or partition is None or offset is None:
                    failed.append(str(error))
                else:
                    places[number] = partition, offset

            return produced

        for number, (key, value) in enumerate(records):
            self._producer.produce(
                self.topic,
                key=key,
                value=value,
                on_delivery=noting(number),
            )
        left = await asyncio.to_thread(self._producer.flush, _DEADLINE)
        assert (left, failed) == (0, [])
        return [places[number] for number in range(len(records))]

    async def record_at(self, partition: int, offset: int) -> Message:
        """Return the record at a place of the topic."""

        def read() -> Message:
            options = {"bootstrap.servers": self._bootstrap, "group.id": "none", "enable.auto.commit": False}
            consumer = ConfluentConsumer(options)
            try:
                consumer.assign([TopicPartition(self.topic, partition, offset)])
                found = consumer.consume(1, _DEADLINE)
                assert len(found) == 1
                assert found[0].error() is None
                return found[0]
            finally:
                consumer.close()

        return await asyncio.to_thread(read)
