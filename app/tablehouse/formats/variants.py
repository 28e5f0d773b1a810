"""Variants: the part of a key's wire bytes that does not depend on the key, as far as this worker knows.

A key with the id of its schema in front has a different wire form for each id, and so may be in another partition; a
key in Kafka Connect's JSON has one for each text of its schema. That id or text is a variant. A key whose schema is
named in a header has the same bytes under all schemas that encode it alike. A worker learns variants from the records
it reads and from the schema registry, but may not know all of them: a router that finds no row under the known variants
asks every partition.
"""

from tablehouse.catalog.spec import KeySpec, SpellingName
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import Schemas

#: Maximum variants of one topic's keys; each may be one more partition to ask on every read.
MAX_VARIANTS = 256


class KeyVariants:
    """The variants of one topic's keys: those that the registry lists, the newest first, after all others.

    A variant that the registry does not list was learned from a record, and is newer or not the id of a schema.
    """

    def __init__(self, topic: str, schemas: Schemas) -> None:
        self.topic = topic
        self.schemas = schemas
        self._known: tuple[bytes, ...] = ()
        #: The spellings of JSON seen in keys, in addition to those of the table; the newest first.
        self.spellings: tuple[SpellingName, ...] = ()

    @property
    def known(self) -> tuple[bytes, ...]:
        """Every variant so far."""
        return self._known

    def learn(self, variant: bytes) -> None:
        """Record a variant; raises DecodeError beyond MAX_VARIANTS."""
        if variant in self._known:
            return
        if len(self._known) == MAX_VARIANTS:
            raise DecodeError(
                f"keys of {self.topic} have more than {MAX_VARIANTS} schemas, and each may be one more partition to "
                "look in: use one schema for the topic's keys"
            )
        self._known = (variant, *self._known)

    async def refresh(self) -> None:
        """Learn the variants that the registry lists for the topic's keys; waits until the registry answers."""
        names = await self.schemas.fetch_subject(f"{self.topic}-key")
        listed = [number.to_bytes(4, "big") for number in names if isinstance(number, int)]
        for variant in listed:
            self.learn(variant)
        order = (*(variant for variant in self._known if variant not in listed), *reversed(listed))
        if order != self._known:
            self._known = order


class Known:
    """A worker's knowledge of its source topics: schemas, and the variants of keys."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas
        self._variants: dict[tuple[str, KeySpec | None], KeyVariants] = {}

    def keys_of(self, topic: str, spec: KeySpec | None = None) -> KeyVariants:
        """Return the variants of a topic's keys, always the same object.

        Without a spec these are ids and GUIDs of schemas. With one, these are the texts of the schemas in keys of that
        spec: tables of one topic may have keys of different formats and fields.
        """
        return self._variants.setdefault((topic, spec), KeyVariants(topic, self.schemas))
