"""From a key's text and a row's payload back to the record of the source that would make the row."""

from typing import Protocol

from app.catalog.spec import TableSpec
from app.errors import InvalidKey
from app.formats.keyed import source_keys
from app.formats.keys import KeyFormat
from app.formats.partitioners import places_empty_keys
from app.formats.values import ValueFormat, value_format
from app.formats.variants import Known


class Encoder(Protocol):
    """How a writable table's source writes its records; safe to call from any thread."""

    @property
    def content_type(self) -> str:
        """The media type that a payload has to be of, as HTTP writes it."""

    def encode(self, key_text: bytes, payload: bytes | None) -> tuple[tuple[bytes, ...], bytes | None]:
        """Return the key in its wire forms, the canonical one first, and the value in its: None for a payload of None.

        A row is written under the canonical form. A deleted one may lie under any of them, and each gets a tombstone.

        Raises InvalidKey for a key, percent-decoded, that cannot be read or written, and DecodeError for a payload that
        ingest could not make a row of.
        """


class PlainEncoder:
    """Records whose values are the payloads themselves, checked as ingest does it."""

    def __init__(self, keys: KeyFormat, values: ValueFormat, *, empty_keys: bool) -> None:
        self.content_type = values.content_type
        self._keys = keys
        self._values = values
        self._empty_keys = empty_keys

    def encode(self, key_text: bytes, payload: bytes | None) -> tuple[tuple[bytes, ...], bytes | None]:
        """See Encoder."""
        wires = self._keys.parse(key_text).wires
        if not wires[0] and not self._empty_keys:
            raise InvalidKey("The key is empty, and the topic's partitioner spreads empty keys over all partitions.")
        if payload is not None:
            self._values.decode(payload)
        return wires, payload


def encoder(table: TableSpec, known: Known) -> Encoder:
    """Return how the records of a writable table's source are written."""
    source = table.source
    keys, values = source_keys(source, known), value_format(table, known.schemas)
    return PlainEncoder(keys, values, empty_keys=places_empty_keys(source.partitioner))
