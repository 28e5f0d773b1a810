"""The worked examples of docs/sources.md that need a registry, with Confluent's serialisers and a real worker."""

import json
import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.schema_registry import EmbeddedRegistry
from tests.support.confluent import SUBJECTS, Confluent
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.protobuf import message_class
from tests.support.worker import MakeWorker

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
_SCHEMA = re.compile(r"^```(json|protobuf) (key|value)\n(.+?)```$", re.MULTILINE | re.DOTALL)
_RECORD = re.compile(r"^key: (.+)\nvalue: (.+)$", re.MULTILINE)
_CURL = re.compile(r"^curl -s (\S+)\n# (\d{3}) (.+)$", re.MULTILINE)

Serialise = Callable[[str], bytes]


def serialiser(source: Confluent, form: str, part: str, text: str, folder: Path) -> Serialise:
    """Return what makes the bytes of a value as the page has it, which is an expression in Python."""
    context = SerializationContext(source.topic, MessageField.KEY if part == "key" else MessageField.VALUE)
    names: dict[str, Any] = {"date": date, "Decimal": Decimal}
    if form == "protobuf":
        name = re.findall(r"^message (\w+)", text, re.MULTILINE)[0]
        names[name] = message_class(folder, text, name)
        made: Any = ProtobufSerializer(names[name], source.registry, {"use.deprecated.format": False} | SUBJECTS)
    elif "properties" in json.loads(text):
        made = JSONSerializer(text, source.registry, conf=SUBJECTS)
    else:
        return lambda value: source.avro(eval(value, names), text, context.field)  # noqa: S307  of a page of ours
    return lambda value: bytes(made(eval(value, names), context))  # noqa: S307  of a page of ours


@pytest.mark.parametrize("title", ["Avro", "Protobuf", "JSON Schema", "Keys behind schemas"])
async def test_the_example_of_a_section_gives_what_it_says(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, make_worker: MakeWorker, tmp_path: Path, title: str
) -> None:
    section = PAGE.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    definition = section.split("```yaml\n", 1)[1].split("```", 1)[0]
    schemas, records, requests = _SCHEMA.findall(section), _RECORD.findall(section), _CURL.findall(section)
    assert schemas
    assert records
    assert requests
    found = re.search(r"topic: ([\w.]+)", definition)
    assert found is not None
    topic = unique(found[1])
    await create_topic(kafka.bootstrap_servers, topic, 4)
    with SchemaRegistryClient({"url": registry.url}) as client:
        source = Confluent(kafka.bootstrap_servers, client, topic)
        plain: dict[str, Serialise] = {"key": str.encode, "value": str.encode}
        made = {part: serialiser(source, form, part, text, tmp_path) for form, part, text in schemas}
        written = plain | made
        await source.produce(*((written["key"](key), written["value"](value)) for key, value in records))
    worker = make_worker(
        kafka.bootstrap_servers,
        definition.replace(found[1], topic),
        group=unique("sources"),
        schema_registry=registry.url,
    )
    worker.start()
    await worker.wait_ready()
    for url, status, body in requests:

        async def answered(url: str = url, status: str = status, body: str = body) -> bool:
            reply = await worker.get(urlsplit(url).path)
            assert reply.status == int(status), reply.body
            text = reply.body.decode()
            assert text == body if reply.status == 200 else text.startswith(body), text
            return True

        await until(answered, url)
