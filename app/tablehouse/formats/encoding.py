"""Encodes a key's text and a row's payload as the source record that makes the row."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from tablehouse.catalog.spec import TableSpec
from tablehouse.errors import InvalidKey, KeySchemaUnknown
from tablehouse.formats.avro_rows import avro_rows
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.keys import Key, KeyFormat
from tablehouse.formats.partitioners import places_empty_keys
from tablehouse.formats.values import ValueFormat, value_format
from tablehouse.formats.variants import Known
from tablehouse.model import ProducerRecord
from tablehouse.turns import Work


class Record(NamedTuple):
    """A source record that makes a row, or deletes it if `value` is None."""

    key: Key
    value: bytes | None

    @property
    def wires(self) -> tuple[bytes, ...]:
        """The key in every wire form, the canonical one first."""
        return self.key.wires

    @property
    def is_spread(self) -> bool:
        """Return whether a delete needs several records, because the row may be stored under any form of its key."""
        return self.value is None and len(self.wires) > 1

    @property
    def of_producer(self) -> Sequence[ProducerRecord]:
        """The records to write, in this order, so that a deleted row does not come back under another form."""
        wires = self.wires[::-1] if self.is_spread else self.wires[:1]
        return [ProducerRecord(wire, self.value, self.key.headers.get(wire, ())) for wire in wires]


class Encoder(Protocol):
    """How a writable table's source writes its records; safe to call from any thread."""

    @property
    def content_type(self) -> str:
        """The media type that payloads must have, as HTTP writes it."""

    def encode(self, key_text: bytes, payload: bytes | None) -> Record:
        """Return the record that makes a row of a payload, or deletes the row for a payload of None.

        `key_text` is percent-decoded. A row is written under the canonical form of its key, which for keys with schemas
        is that of the newest known schema. A row to delete may be under any form, so each form gets a tombstone.

        Raises InvalidKey for a key that cannot be read or written, KeySchemaUnknown while no schema of the keys is
        known, DecodeError for a payload that could not be ingested, and SchemaNeeded.
        """

    def encode_in_pieces(self, key_text: bytes, payload: bytes) -> Work[Record]:
        """Do what encode does with a large payload, yielding as ValueFormat.decode_in_pieces does."""


class RecordEncoder:
    """Implements Encoder: `write` makes the record's value of a payload, and `write_in_pieces` that of a large one."""

    def __init__(
        self,
        keys: KeyFormat,
        content_type: str,
        write: Callable[[bytes], bytes],
        write_in_pieces: Callable[[bytes], Work[bytes]],
        *,
        empty_keys: bool,
    ) -> None:
        self.content_type = content_type
        self._keys = keys
        self._write = write
        self._write_in_pieces = write_in_pieces
        self._empty_keys = empty_keys

    def encode(self, key_text: bytes, payload: bytes | None) -> Record:
        """See Encoder."""
        key = self._key(key_text)
        return Record(key, None if payload is None else self._write(payload))

    def encode_in_pieces(self, key_text: bytes, payload: bytes) -> Work[Record]:
        """See Encoder."""
        key = self._key(key_text)
        return Record(key, (yield from self._write_in_pieces(payload)))

    def _key(self, key_text: bytes) -> Key:
        key = self._keys.parse(key_text)
        if not key.wires and self._keys.name != "avro":
            raise KeySchemaUnknown(
                "no schema of the topic's keys is known to this worker yet, so it cannot write this key: no record was "
                "read with one"
            )
        if not key.wires:
            raise InvalidKey("No schema of the topic's keys has this key, for example a number beyond an int.")
        if not key.wires[0] and not self._empty_keys:
            raise InvalidKey("The key is empty, and the topic's partitioner spreads empty keys over all partitions.")
        return key


def encoder(table: TableSpec, known: Known) -> Encoder:
    """Return the encoder of the records of a writable table's source."""
    source = table.source
    values = value_format(table, known.schemas)
    avro = avro_rows(table, known.schemas)
    write, write_in_pieces = _as_it_is(values) if avro is None else (avro.framed, avro.framed_in_pieces)
    return RecordEncoder(
        source_keys(source, known),
        values.content_type,
        write,
        write_in_pieces,
        empty_keys=places_empty_keys(source.partitioner),
    )


def _as_it_is(values: ValueFormat) -> tuple[Callable[[bytes], bytes], Callable[[bytes], Work[bytes]]]:
    """Return functions that check a payload as ingest does, at once and in pieces, and return it unchanged."""

    def checked(payload: bytes) -> bytes:
        values.decode(payload)
        return payload

    def checked_in_pieces(payload: bytes) -> Work[bytes]:
        yield from values.decode_in_pieces(payload)
        return payload

    return checked, checked_in_pieces
