"""What else than a key its wire bytes depend on, as far as this worker knows.

A key behind the id of its schema has another wire form for each id, and so another partition; a key in Kafka Connect's
JSON has one for each text of its schema. That id or text is a variant. A key whose schema a header
names is the same bytes under all that write it alike. A worker learns variants from the records that it reads and from
the schema registry, never all of them for certain: so a router that finds nothing under those it knows asks every
partition.
"""

from tablehouse.catalog.spec import KeySpec, SpellingName
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import Schemas

#: Variants of one topic's keys; each may be one more partition to ask for every read.
MOST_VARIANTS = 256


class KeyVariants:
    """The variants of the keys of one topic: those that the registry lists from its newest on, before them others.

    What it does not list yet was learnt from a record, and is newer, or is no schema's id.
    """

    def __init__(self, topic: str, schemas: Schemas) -> None:
        self.topic = topic
        self.schemas = schemas
        self._known: tuple[bytes, ...] = ()
        #: The spellings of JSON in which keys were read, besides those that are looked for anyway; the newest first.
        self.spellings: tuple[SpellingName, ...] = ()

    @property
    def known(self) -> tuple[bytes, ...]:
        """Every variant so far."""
        return self._known

    def learn(self, variant: bytes) -> None:
        """Take note of one; raises DecodeError beyond MOST_VARIANTS."""
        if variant in self._known:
            return
        if len(self._known) == MOST_VARIANTS:
            raise DecodeError(
                f"keys of {self.topic} have more than {MOST_VARIANTS} schemas, and each is a partition to look in: "
                "give the topic's keys one schema"
            )
        self._known = (variant, *self._known)

    async def refresh(self) -> None:
        """Learn what the registry lists for the topic's keys; waits for it as long as it is away."""
        names = await self.schemas.fetch_subject(f"{self.topic}-key")
        listed = [number.to_bytes(4, "big") for number in names if isinstance(number, int)]
        for variant in listed:
            self.learn(variant)
        order = (*(variant for variant in self._known if variant not in listed), *reversed(listed))
        if order != self._known:
            self._known = order


class Known:
    """What a worker knows for reading its source topics: schemas, and the variants of keys."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas
        self._variants: dict[tuple[str, KeySpec | None], KeyVariants] = {}

    def keys_of(self, topic: str, spec: KeySpec | None = None) -> KeyVariants:
        """Return the variants of a topic's keys, always the same object.

        Without a spec these are ids and GUIDs of schemas. With one, these are the texts of schemas beside keys that the
        spec reads: tables of one topic may have keys of different formats and fields.
        """
        return self._variants.setdefault((topic, spec), KeyVariants(topic, self.schemas))
