"""A registry's responses as values, and the errors for other responses."""

from typing import Any

import msgspec

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_with


class Unavailable(Exception):
    """No registry answered; the request can be repeated later. The message has the URL and the reason."""


class NoRegistry(Unavailable):
    """The response is not from a schema registry. It may be from a proxy in front of a registry that is down."""


class Refusal(Exception):
    """The registry answered that there is no such schema; a registry that follows another may have it later."""


class Unusable(Refusal):
    """The schema exists and cannot be used. Repeating the request is pointless, since a schema never changes."""


class Use(msgspec.Struct, frozen=True):
    """A reference as the registry lists it."""

    name: str
    subject: str
    version: int


class Registered(msgspec.Struct, frozen=True, rename="camel"):
    """A schema as the registry returns it; `id` is 0 if it was requested by id. No type means Avro."""

    schema: str
    schema_type: str | None = None
    references: tuple[Use, ...] | None = None
    id: int = 0


class _Error(msgspec.Struct):
    error_code: int
    message: str = ""


_errors = msgspec.json.Decoder(_Error)


#: Confluent's error codes for a subject, a version and a schema that do not exist.
_NOT_FOUND = frozenset({40401, 40402, 40403})


def not_found(body: bytes) -> str | None:
    """Return the registry's message that something does not exist; None if the 404 is not from a registry."""
    try:
        error = decode_with(_errors, body)
    except DecodeError:
        return None
    return error.message or f"error {error.error_code}" if error.error_code in _NOT_FOUND else None


def parse(body: bytes, kind: Any) -> Any:
    """Return a response as a value of a type; raises NoRegistry if that fails."""
    try:
        return decode_with(msgspec.json.Decoder(kind), body)
    except DecodeError as error:
        raise NoRegistry(f"its response is not from a schema registry ({error})") from error
