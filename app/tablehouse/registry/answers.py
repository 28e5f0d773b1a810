"""What a registry answers, as values, and the ways in which it can be of no help."""

from typing import Any

import msgspec

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_with


class Unavailable(Exception):
    """No registry could say; asking again later is right. The message says which URL and why."""


class NoRegistry(Unavailable):
    """What answered is no schema registry. It may be one again later: a proxy stands in for one that is down."""


class Refusal(Exception):
    """The registry has answered, and there is no such schema; a registry that follows another may hear of it later."""


class Unusable(Refusal):
    """The schema is there, and cannot be used. Asking again later is of no use, since it never changes."""


class Use(msgspec.Struct, frozen=True):
    """A reference as the registry lists it."""

    name: str
    subject: str
    version: int


class Registered(msgspec.Struct, frozen=True, rename="camel"):
    """A schema as the registry gives it; `id` is 0 where it was asked for by its id. No type means Avro."""

    schema: str
    schema_type: str | None = None
    references: tuple[Use, ...] | None = None
    id: int = 0


class _Error(msgspec.Struct):
    error_code: int
    message: str = ""


_errors = msgspec.json.Decoder(_Error)


#: Confluent's codes for a subject, a version and a schema that is not there.
_NOT_FOUND = frozenset({40401, 40402, 40403})


def not_found(body: bytes) -> str | None:
    """Return the registry's own words when it says that something is not there; None when the 404 is another's."""
    try:
        error = decode_with(_errors, body)
    except DecodeError:
        return None
    return error.message or f"error {error.error_code}" if error.error_code in _NOT_FOUND else None


def parse(body: bytes, kind: Any) -> Any:
    """Return an answer as a value of a type; raises NoRegistry when it is none."""
    try:
        return decode_with(msgspec.json.Decoder(kind), body)
    except DecodeError as error:
        raise NoRegistry(f"its answer is not that of a schema registry ({error})") from error
