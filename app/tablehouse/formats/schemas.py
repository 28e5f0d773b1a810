"""The schemas that values and keys were written with, and the interface through which formats and tasks get them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from tablehouse.catalog.spec import REGISTRY_FORMATS, Catalog, ValueFormatName
from tablehouse.errors import ConfigError
from tablehouse.formats.errors import DecodeError

SchemaKind = Literal["AVRO", "PROTOBUF", "JSON"]

#: The format in tables.yaml of values whose schemas are of a kind.
FORMAT_OF_KIND: Mapping[SchemaKind, ValueFormatName] = {"AVRO": "avro", "PROTOBUF": "protobuf", "JSON": "json_sr"}

#: How a record names the schema it was written with: by its id in the registry, or by its GUID.
SchemaName = int | UUID

#: Maximum nesting of the types of a schema, which is Protobuf's own limit for messages. Readers and writers of values
#: recurse several times for each type, and an interpreter may stop at 1000.
MAX_TYPES_NESTED = 100


class SchemaNeeded(Exception):
    """A schema has to be fetched before a record can be read; this is no fault of the record.

    `needed` is the id or GUID of the schema, or the subject whose latest version is needed.
    """

    def __init__(self, needed: SchemaName | str) -> None:
        super().__init__(f"schema {needed} has not been fetched yet")
        self.needed = needed


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one refers to by `name`, with its own references."""

    name: str
    subject: str
    version: int
    schema: "Schema"


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as it was registered; `id` is the name it was requested by, which never means another schema."""

    id: SchemaName
    kind: SchemaKind
    text: str
    references: tuple[Reference, ...] = ()


class Schemas(Protocol):
    """The source of schemas. `known` answers from memory, so it can be called for every record."""

    def known(self, schema_id: SchemaName) -> Schema:
        """Return a schema that was fetched before.

        Raises SchemaNeeded if it was not, and DecodeError if it does not exist or cannot be used.
        """

    def latest(self, subject: str, writer: SchemaName) -> Schema:
        """Return the latest version of a subject, as of a time after the schema `writer` was fetched.

        So the schema of the rows is never older than that of the record. Raises as `known` does.
        """

    async def fetch(self, needed: SchemaName | str) -> None:
        """Request a schema by its id or GUID, or the latest of a subject, until there is an answer; safe to cancel.

        There is no time limit. Afterwards `known` or `latest` returns it or raises DecodeError for at least a minute.
        """

    async def fetch_subject(self, subject: str) -> Sequence[SchemaName]:
        """Fetch all versions of a subject and return their ids, the oldest first; none if there is no such subject.

        Waits as `fetch` does. Versions registered since the last call are included.
        """

    def describe(self, needed: SchemaName | str) -> str:
        """Return a schema's name, its registry and the registry's trouble, for a message about waiting for it."""


class NoSchemas:
    """Used if no schema registry is configured and no table needs one."""

    trouble: str | None = None

    def require(self, catalog: Catalog) -> None:
        """Raise ConfigError if a table of the catalog needs a schema registry."""
        needing = _fields_in_need(catalog)
        if needing:
            raise ConfigError(
                "\n".join(f"{field}: set schema_registry to a schema registry's URL" for field in needing)
            )

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    def known(self, schema_id: SchemaName) -> Schema:
        """See Schemas."""
        raise DecodeError(f"schema {schema_id} cannot be fetched: no schema registry is configured")

    def latest(self, subject: str, writer: SchemaName) -> Schema:
        """See Schemas."""
        del writer
        raise DecodeError(f"the schema of subject {subject} cannot be fetched: no schema registry is configured")

    async def fetch(self, needed: SchemaName | str) -> None:
        """See Schemas."""

    async def fetch_subject(self, subject: str) -> Sequence[SchemaName]:
        """See Schemas."""
        del subject
        return ()

    def describe(self, needed: SchemaName | str) -> str:
        """See Schemas."""
        return f"schema {needed} of no registry"


def _fields_in_need(catalog: Catalog) -> list[str]:
    """Return the tables that need a schema registry, each with the field that needs it."""
    needing = []
    for table in catalog.tables.values():
        key, value = table.source.key, table.source.value
        if key.format in REGISTRY_FORMATS:
            needing.append(f"table {table.name}: source.key is {key.format}, which needs a schema registry")
        if value.format in REGISTRY_FORMATS and value.framing == "registry":
            needing.append(f"table {table.name}: source.value is {value.format}, which needs a schema registry")
        elif isinstance(value.schema, int):
            needing.append(f"table {table.name}: source.value.schema is {value.schema}, an id of a schema registry")
    return needing
