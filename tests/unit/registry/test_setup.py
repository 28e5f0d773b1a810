import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tablehouse.catalog.spec import Catalog, KeySpec, SchemaFile, SourceSpec, TableSpec, ValueSpec
from tablehouse.config.settings import Settings
from tablehouse.errors import ConfigError
from tablehouse.formats.schemas import NoSchemas
from tablehouse.registry.client import SchemaRegistry
from tablehouse.registry.setup import access_of, schema_source
from tablehouse.registry.transport import Transport
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.telemetry import Metrics
from tests.support.registry import StandInRegistry

PLAIN = Catalog({"planes": TableSpec("planes", SourceSpec("planes", KeySpec("string"), ValueSpec("json")))})


def settings(**given: Any) -> Settings:
    values: Mapping[str, Any] = {"bootstrap_servers": "kafka:9092", "tables": "tables.yaml", **given}
    return Settings(**values)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    held = DataDirectory.acquire(tmp_path / "data")
    yield held
    held.release()


@pytest.mark.parametrize(
    ("field", "name"),
    [("key", "avro"), ("key", "json_sr"), ("value", "avro"), ("value", "protobuf"), ("value", "json_sr")],
)
def test_a_table_that_needs_a_registry_where_there_is_none_is_refused_by_name_and_field(
    field: str, name: Any, directory: DataDirectory
) -> None:
    key = KeySpec(name if field == "key" else "string")
    source = SourceSpec("t", key, ValueSpec(name if field == "value" else "json"))
    catalog = Catalog({**PLAIN.tables, "customers": TableSpec("customers", source)})
    with pytest.raises(ConfigError) as refused:
        schema_source(settings().registry, catalog, directory, Metrics("0"))
    assert str(refused.value) == (
        f"table customers: source.{field} is {name}, which needs a schema registry: set schema_registry to a schema "
        "registry's URL"
    )


def test_avro_of_a_schema_in_a_file_needs_no_registry_and_of_an_id_does(directory: DataDirectory) -> None:
    def catalog(schema: int | SchemaFile) -> Catalog:
        value = ValueSpec("avro", framing="none", schema=schema)
        return Catalog({"t": TableSpec("t", SourceSpec("t", KeySpec("string"), value))})

    in_a_file = catalog(SchemaFile(Path("t.avsc"), "{}"))
    assert isinstance(schema_source(settings().registry, in_a_file, directory, Metrics("0")), NoSchemas)
    with pytest.raises(ConfigError, match=r"table t: source\.value\.schema is 7, an id of a schema registry: set"):
        schema_source(settings().registry, catalog(7), directory, Metrics("0"))


async def test_without_a_registry_there_are_no_schemas_and_with_one_there_are(directory: DataDirectory) -> None:
    assert isinstance(schema_source(settings().registry, PLAIN, directory, Metrics("0")), NoSchemas)
    source = schema_source(settings(schema_registry="http://registry:8081").registry, PLAIN, directory, Metrics("0"))
    assert isinstance(source, SchemaRegistry)
    await source.stop()


@dataclass(frozen=True)
class Authority:
    """An authority of one's own, and a registry that only answers who shows one of its certificates."""

    ca: Path
    certificate: Path
    key: Path
    both: Path
    registry: StandInRegistry


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    ca = trustme.CA()
    worker, server = ca.issue_cert("worker"), ca.issue_cert("127.0.0.1")
    contents = {
        "ca.pem": ca.cert_pem,
        "w.pem": worker.cert_chain_pems[0],
        "w.key": worker.private_key_pem,
        "both.pem": worker.private_key_and_cert_chain_pem,
    }
    for name, content in contents.items():
        content.write_to_path(str(tmp_path / name))
    files = [tmp_path / name for name in contents]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with StandInRegistry(tls=context) as registry:
        yield Authority(files[0], files[1], files[2], files[3], registry)


async def ask(given: Settings) -> Any:
    registry = Transport(access_of(given.registry), Metrics("0").schema_registry_requests)
    try:
        return await registry.get("/subjects", list[str])
    finally:
        await registry.close()


async def test_a_registry_with_an_authority_of_its_own_is_shown_a_certificate(authority: Authority) -> None:
    url, ca = authority.registry.url, str(authority.ca)
    pair = {"schema_registry_certificate": str(authority.certificate), "schema_registry_key": str(authority.key)}
    for shown in (pair, {"schema_registry_certificate": str(authority.both)}):
        assert await ask(settings(schema_registry=url, schema_registry_ca=ca, **shown)) == []
    with pytest.raises(Exception, match=f"{url}: .*certificate verify failed"):
        await ask(settings(schema_registry=url, **pair))
    with pytest.raises(Exception, match=f"{url}: "):
        await ask(settings(schema_registry=url, schema_registry_ca=ca))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"schema_registry_ca": "missing.pem"}, r"schema_registry_ca: missing\.pem cannot be used \(No such file"),
        ({"schema_registry_ca": "{junk}"}, r"schema_registry_ca: .*junk\.pem cannot be used"),
        (
            {"schema_registry_certificate": "missing.pem"},
            r"schema_registry_certificate: missing\.pem cannot be used \(No such file or directory\)",
        ),
        (
            {"schema_registry_certificate": "{certificate}"},
            r"schema_registry_certificate: .*w\.pem cannot be used .*a certificate and its unencrypted key, in PEM",
        ),
        (
            {"schema_registry_certificate": "{certificate}", "schema_registry_key": "{ca}"},
            r"schema_registry_certificate: .*w\.pem and .*ca\.pem cannot be used",
        ),
    ],
)
async def test_files_that_cannot_be_used_are_named(
    given: dict[str, str], words: str, authority: Authority, tmp_path: Path
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    places = {"junk": junk, "certificate": authority.certificate, "ca": authority.ca}
    filled = {name: value.format(**places) for name, value in given.items()}
    with pytest.raises(ConfigError, match=words):
        access_of(settings(schema_registry="https://registry", **filled).registry)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - trustme brings it

    pem = trustme.CA().issue_cert("worker").private_key_and_cert_chain_pem.bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"horse"),
    )
    file = tmp_path / "encrypted.pem"
    file.write_bytes(pem[pem.index(b"-----BEGIN CERTIFICATE") :] + encrypted)
    with pytest.raises(ConfigError, match=r"encrypted\.pem cannot be used"):
        access_of(settings(schema_registry="https://registry", schema_registry_certificate=str(file)).registry)
