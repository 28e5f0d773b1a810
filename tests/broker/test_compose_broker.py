"""A real broker with the properties that deploy/compose gives the one in the container."""

from pathlib import Path

import yaml
from aiokafka.client import AIOKafkaClient

from tablehouse.testing import processes
from tablehouse.testing.kafka import EmbeddedKafka

_COMPOSE = Path(__file__).parents[2] / "deploy" / "compose" / "compose.yaml"
#: Ports of the container, and the folder in it, which this machine has not.
_PORTS = (9092, 19092, 9093)
_PREFIX = "KAFKA_"


async def test_a_client_of_either_listener_is_sent_on_to_that_listener(tmp_path: Path) -> None:
    environment = yaml.safe_load(_COMPOSE.read_text("utf-8"))["services"]["kafka"]["environment"]
    here = {port: processes.free_port() for port in _PORTS}
    properties = {}
    for variable, text in environment.items():
        name = variable.removeprefix(_PREFIX).lower().replace("_", ".")
        for port in _PORTS:
            text = str(text).replace(f":{port}", f":{here[port]}")  # noqa: PLW2901
        properties[name] = text
    del properties["log.dirs"]
    with EmbeddedKafka(tmp_path / "kafka", port=here[9092], properties=properties):
        for port, advertised in ((9092, "localhost"), (19092, "kafka")):
            client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{here[port]}")
            await client.bootstrap()
            try:
                [broker] = client.cluster.brokers()
                assert (broker.host, broker.port) == (advertised, here[port])
            finally:
                await client.close()
