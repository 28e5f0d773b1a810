"""Producers in several languages, each as its library is set by default."""

import asyncio
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer

from tablehouse.testing.jars import JarSet, cache_folder, class_path, kafka_class_path

_FOLDER = Path(__file__).parents[1] / "clients"
_SECONDS = 300.0

_APICURIO = JarSet(
    "Apicurio's Avro serializer 3.1.7", "apicurio-serializer-3.1.7", Path(__file__).with_name("apicurio_jars.txt")
)

#: Keys and values in text.
Records = Sequence[tuple[str, str]]


async def _run(records: Records, program: str, *arguments: str, folder: Path | None = None) -> None:
    """Give a program records as lines."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine")
    lines = "".join(f"{key}\t{value}\n" for key, value in records)
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(lines.encode()), _SECONDS)
    assert process.returncode == 0, f"{program} {' '.join(arguments)}: {said.decode('utf-8', 'replace')}"


async def _run_java(records: Records, source: str, *arguments: str, more: Sequence[JarSet] = ()) -> None:
    """Give a Java program records as lines; its class path is Kafka's, and `more` jars."""
    jars = [await asyncio.to_thread(kafka_class_path), *[await asyncio.to_thread(class_path, one) for one in more]]
    if shutil.which("javac") is None:
        pytest.skip("javac is not on this machine")
    await _run(records, "java", "-cp", os.pathsep.join(jars), str(_FOLDER / "java" / source), *arguments)


async def by_go(library: str, bootstrap: str, topic: str, records: Records, *registry: str) -> None:
    """Produce with franz-go, sarama, kafka-go or kafka-go-hash (its Hash balancer).

    Or with franz-go-avro and the URL of a schema registry, which makes Avro of values `{"n": ..}`.
    """
    await _run(records, "go", "run", ".", library, bootstrap, topic, *registry, folder=_FOLDER / "go")


async def by_kafkajs(bootstrap: str, topic: str, records: Records, *registry: str) -> None:
    """Produce with KafkaJS, which is fetched once into the cache folder.

    With the URL of a schema registry its own client makes Avro of values `{"n": ..}`.
    """
    folder = cache_folder() / "kafkajs-producer"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json", "produce.js"):
        shutil.copyfile(_FOLDER / "node" / file, folder / file)
    if not (folder / "node_modules" / "@kafkajs" / "confluent-schema-registry").is_dir():
        await _run((), "npm", "ci", "--silent", folder=folder)
    await _run(records, "node", "produce.js", bootstrap, topic, *registry, folder=folder)


async def by_java(keys: str, bootstrap: str, topic: str, records: Records) -> None:
    """Produce with Kafka's own client and its StringSerializer, IntegerSerializer or LongSerializer of keys."""
    await _run_java(records, "Produce.java", bootstrap, topic, keys)


async def by_java_avro(bootstrap: str, topic: str, records: Records, registry: str) -> None:
    """Produce with Kafka's own client, and Apicurio's serializer to make Avro of values `{"n": ..}`.

    It registers schemas by Apicurio's own API of the embedded registry. Confluent's serializer is not on Maven Central.
    """
    own_api = registry.replace("/ccompat/v7", "/registry/v3")
    lines = [(key, str(json.loads(value)["n"])) for key, value in records]
    await _run_java(lines, "ProduceAvro.java", bootstrap, topic, own_api, more=[_APICURIO])


async def by_kcat(bootstrap: str, topic: str, records: Records) -> None:
    """Produce with kcat."""
    await _run(records, "kcat", "-P", "-b", bootstrap, "-t", topic, "-K", r"\t")


async def by_confluent_kafka(bootstrap: str, topic: str, records: Records) -> None:
    """Produce with confluent-kafka."""

    def produce() -> int:
        producer = Producer({"bootstrap.servers": bootstrap})
        for key, value in records:
            producer.produce(topic, key=key, value=value)
        return int(producer.flush(60))

    assert await asyncio.to_thread(produce) == 0


async def by_kafka_python(bootstrap: str, topic: str, records: Records) -> None:
    """Produce with kafka-python."""

    def produce() -> None:
        with warnings.catch_warnings():
            # Of what it uses to read its own files.
            warnings.simplefilter("ignore")
            from kafka import KafkaProducer  # type: ignore[import-untyped]  # noqa: PLC0415

        producer = KafkaProducer(bootstrap_servers=bootstrap)
        for key, value in records:
            producer.send(topic, key=key.encode(), value=value.encode())
        producer.flush(60)
        producer.close()

    await asyncio.to_thread(produce)


async def by_aiokafka(bootstrap: str, topic: str, records: Records) -> None:
    """Produce with aiokafka."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(topic, key=key.encode(), value=value.encode())
    finally:
        await producer.stop()


#: What the partitioner of each producer is called in tables.yaml, and the format of its keys.
EXPECTED: Mapping[str, tuple[str, str]] = {
    "java": ("murmur2", "string"),
    "java-integer": ("murmur2", "int"),
    "java-long": ("murmur2", "long"),
    "confluent-kafka": ("crc32", "string"),
    "kafka-python": ("murmur2", "string"),
    "aiokafka": ("murmur2", "string"),
    "kafkajs": ("murmur2", "string"),
    "franz-go": ("murmur2", "string"),
    "sarama": ("fnv1a", "string"),
    "kafka-go": ("any", "string"),
    "kafka-go-hash": ("fnv1a", "string"),
    "kcat": ("crc32", "string"),
}


async def produce_by(name: str, bootstrap: str, topic: str, records: Records) -> None:
    """Produce records with a library of EXPECTED; skips the test where its language is not there."""
    match name:
        case "java":
            await by_java("String", bootstrap, topic, records)
        case "java-integer":
            await by_java("Integer", bootstrap, topic, records)
        case "java-long":
            await by_java("Long", bootstrap, topic, records)
        case "confluent-kafka":
            await by_confluent_kafka(bootstrap, topic, records)
        case "kafka-python":
            await by_kafka_python(bootstrap, topic, records)
        case "aiokafka":
            await by_aiokafka(bootstrap, topic, records)
        case "kafkajs":
            await by_kafkajs(bootstrap, topic, records)
        case "kcat":
            await by_kcat(bootstrap, topic, records)
        case _:
            await by_go(name, bootstrap, topic, records)
