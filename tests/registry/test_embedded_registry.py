"""The registry that tests and demonstrations start."""

from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from tablehouse.errors import SetupError
from tablehouse.testing import schema_registry
from tablehouse.testing.schema_registry import EmbeddedRegistry, registry_program
from tests.support.kafka import unique

AVRO = '{"type":"record","name":"Plane","fields":[{"name":"tailnum","type":"string"}]}'


def test_it_is_confluent_s_registry_to_confluent_s_client(registry: EmbeddedRegistry) -> None:
    subject = unique("planes")
    with SchemaRegistryClient({"url": registry.url}) as client:
        schema_id = client.register_schema(subject, Schema(AVRO, "AVRO"))
        assert client.get_schema(schema_id).schema_str == AVRO
        assert client.get_latest_version(subject).version == 1


def test_what_was_registered_outlives_a_kill_under_the_same_id_and_url(own_registry: EmbeddedRegistry) -> None:
    own_registry.start()
    url = own_registry.url
    with SchemaRegistryClient({"url": url}) as client:
        schema_id = client.register_schema("planes", Schema(AVRO, "AVRO"))
    own_registry.kill()
    own_registry.start()
    assert own_registry.url == url
    with SchemaRegistryClient({"url": url}) as client:
        assert client.get_schema(schema_id).schema_str == AVRO


def test_a_busy_port_is_named(registry: EmbeddedRegistry, tmp_path: Path) -> None:
    port = int(registry.url.split(":")[2].split("/")[0])
    with pytest.raises(SetupError, match=f"port {port} of 127.0.0.1 is in use"):
        EmbeddedRegistry(tmp_path, port=port).start()


def test_a_registry_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARKUS_HTTP_SSL_PORT", "no port")
    registry = EmbeddedRegistry(tmp_path)
    with pytest.raises(SetupError, match=r"(?s)ended while it was starting.*registry\.log.*no port"):
        registry.start()


def test_without_a_network_the_file_and_where_it_goes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(SetupError) as refusal:
        registry_program()
    folder = tmp_path / f"apicurio-registry-{schema_registry.REGISTRY_VERSION}"
    assert "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all" in str(refusal.value)
    assert str(folder / "quarkus-run.jar") in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == [f".{folder.name}.lock"]
