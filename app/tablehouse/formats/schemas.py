"""The schemas that values and keys were written with, as far as formats and tasks know them: by id, from somewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from tablehouse.catalog.spec import ValueFormatName
from tablehouse.formats.errors import DecodeError

SchemaKind = Literal["AVRO", "PROTOBUF", "JSON"]

#: What the format of values with schemas of a kind is called in tables.yaml.
FORMAT_OF_KIND: Mapping[SchemaKind, ValueFormatName] = {"AVRO": "avro", "PROTOBUF": "protobuf", "JSON": "json_sr"}

#: What a record calls the schema that it was written with: its id in the registry, or its GUID.
SchemaName = int | UUID

#: How deep the types of a schema may be in each other, Protobuf's own limit for messages. What reads and writes values
#: recurses several times for each type, and an interpreter may stop at 1000.
MAX_TYPES_NESTED = 100


class SchemaNeeded(Exception):
    """A schema has to be fetched before a record can be read; nothing is known against it.

    `needed` is its id or GUID, or the subject whose latest version it is.
    """

    def __init__(self, needed: SchemaName | str) -> None:
        super().__init__(f"schema {needed} has not been fetched yet")
        self.needed = needed


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one uses, under the name by which that one calls it; with all that it uses itself."""

    name: str
    subject: str
    version: int
    schema: "Schema"


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as it was registered, and by what it was asked for, which stands for the same schema forever."""

    id: SchemaName
    kind: SchemaKind
    text: str
    references: tuple[Reference, ...] = ()


class Schemas(Protocol):
    """Where schemas come from. `known` answers from memory, so that it can be asked for every record."""

    def known(self, schema_id: SchemaName) -> Schema:
        """Return a schema that was fetched before.

        Raises SchemaNeeded when it was not, and DecodeError when there is none of this name, or none that can be used.
        """

    def latest(self, subject: str, writer: SchemaName) -> Schema:
        """Return the latest version of a subject, of a time after the schema `writer` was fetched.

        So what it says of rows is never older than the record. Raises as `known` does.
        """

    async def fetch(self, needed: SchemaName | str) -> None:
        """Ask for a schema by its id or GUID, or for the latest of a subject, until there is an answer; safe to cancel.

        That takes however long it takes. Afterwards `known` or `latest` returns it or raises DecodeError, for a minute
        at least.
        """

    async def fetch_subject(self, subject: str) -> Sequence[SchemaName]:
        """Return the ids of a subject's versions, the oldest first, and fetch each; none when there is no such subject.

        Waits as `fetch` does. What was registered since the last call is fetched too.
        """

    def describe(self, needed: SchemaName | str) -> str:
        """Name a schema, the place it comes from and what is wrong there now, for a sentence about waiting for it."""


class NoSchemas:
    """Stands in where no schema registry is configured, and no table needs one."""

    trouble: str | None = None

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
