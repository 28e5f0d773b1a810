"""The scalars of structured keys: read from JSON and from stored bytes, and written in every spelling."""

from collections.abc import Iterable, Sequence

from tablehouse.catalog.spec import KeySpec, SpellingName
from tablehouse.errors import InvalidKey
from tablehouse.formats.errors import DecodeError, StoredKeyError
from tablehouse.formats.json_text import decode_key_json
from tablehouse.formats.members import Members
from tablehouse.formats.ordered import SIGN, Scalar, ordered_bytes, scalars_of
from tablehouse.formats.spellings import SPELLINGS, Member, Write, compact


class KeyMembers:
    """The scalars of a structured key: one, or those of its fields in their order."""

    def __init__(self, spec: KeySpec) -> None:
        self._format = spec.format
        self._fields = spec.fields
        self._bare = spec.bare or not spec.fields
        self._writes = [SPELLINGS[name] for name in spec.spellings]

    def of_text(self, text: bytes) -> list[Scalar]:
        """Return the scalars of a URL's JSON; raises InvalidKey."""
        try:
            value = decode_key_json(text)
            return [_scalar(value, "it")] if self._bare else self.of_value(value)
        except DecodeError as error:
            raise self.invalid(str(error)) from error

    def of_prefix(self, text: bytes) -> list[Scalar]:
        """Return the leading scalars of keys, of a JSON array; raises InvalidKey."""
        try:
            return self._leading(decode_key_json(text))
        except DecodeError as error:
            order = f", in the order {', '.join(self._fields)}" if self._fields else ""
            raise InvalidKey(
                f"The prefix does not fit key format {self._format} ({error}): use a JSON array of the first members "
                f"of keys{order}."
            ) from error

    def _leading(self, value: object) -> list[Scalar]:
        count = max(1, len(self._fields))
        if not isinstance(value, list) or len(value) > count:
            raise DecodeError(f"it is not an array of at most {count}")
        return [_scalar(member, "a member") for member in value]

    def invalid(self, why: str) -> InvalidKey:
        """Return the error for a text, which says what is expected."""
        expected = (
            "use a JSON string (in quotes), number, true, false or null"
            if self._bare
            else f"use a JSON object of exactly the members {', '.join(self._fields)}, each a string, number, true, "
            "false or null"
        )
        return InvalidKey(f"The key is not of key format {self._format} ({why}): {expected}.")

    def of_json(self, text: bytes) -> list[Scalar]:
        """Return the scalars of a record's JSON; raises DecodeError."""
        return self.of_value(decode_key_json(text))

    def of_value(self, value: object) -> list[Scalar]:
        """Return the scalars of a record's key; raises DecodeError."""
        if not self._fields:
            return [_scalar(value, "it")]
        if not isinstance(value, dict):
            raise DecodeError("it is not an object")
        if len(value) != len(self._fields) or not all(name in value for name in self._fields):
            raise DecodeError(f"its members are not exactly {', '.join(self._fields)}")
        return [_scalar(value[name], f"its member {name}") for name in self._fields]

    def of_stored(self, stored: bytes) -> list[Scalar]:
        """Return the scalars of a stored key; raises StoredKeyError."""
        scalars, count = scalars_of(stored), max(1, len(self._fields))
        if len(scalars) != count:
            raise StoredKeyError(f"a stored key of format {self._format} has {count} scalars, this one {len(scalars)}")
        return scalars

    def text(self, stored: bytes) -> bytes:
        """Return the JSON of a stored key in a URL, in the canonical spelling; raises StoredKeyError."""
        return compact(self.of_stored(stored), () if self._bare else self._fields)

    def text_in(self, content: bytes) -> bytes:
        """Return the part of a record's JSON that a URL carries, unchanged; the JSON has been checked before."""
        return Members(self._fields)(content)[self._fields[0]] if self._bare and self._fields else content

    def canonical(self, wire: bytes) -> bytes:
        """Return a record's JSON if it is in one of the spellings, otherwise the same key in the first of them."""
        scalars = self.of_json(wire)
        for write in self._writes:
            if write(scalars, self._fields) == wire:
                return wire
        return self._writes[0](scalars, self._fields)

    def spellings_of(self, wire: bytes) -> frozenset[SpellingName]:
        """Return the spellings that produce exactly a record's JSON; raises DecodeError."""
        scalars = self.of_json(wire)
        return frozenset(name for name, write in SPELLINGS.items() if write(scalars, self._fields) == wire)

    def forms(self, members: Sequence[Member], others: tuple[SpellingName, ...] = ()) -> tuple[bytes, ...]:
        """Return the distinct JSON texts of members in all spellings, in their order and `others` first."""
        # A dictionary keeps the order and drops duplicates.
        return tuple(dict.fromkeys(write(members, self._fields) for write in self._writes_with(others)))

    def _writes_with(self, others: tuple[SpellingName, ...]) -> list[Write]:
        return [*(SPELLINGS[name] for name in others), *self._writes] if others else self._writes

    def other_spelling(
        self, text: bytes, members: Sequence[Member], known: tuple[SpellingName, ...]
    ) -> SpellingName | None:
        """Return a spelling that is not of the spec and not in `known`, and that produces the members of a record.

        None if one of these produces them, or no spelling does.
        """
        if any(write(members, self._fields) == text for write in self._writes_with(known)):
            return None
        names = (name for name, write in SPELLINGS.items() if write(members, self._fields) == text)
        return next(names, None)


def stored_scalars(scalars: Iterable[Scalar]) -> bytes:
    """Return the stored form of a key of scalars."""
    return b"".join(map(ordered_bytes, scalars))


def _scalar(value: object, subject: str) -> Scalar:
    match value:
        case bool() | None | str() | float():
            return value
        case int():
            if not -SIGN <= value < SIGN:
                raise DecodeError(f"{subject} is an integer beyond 64 bits")
            return value
    raise DecodeError(f"{subject} is not a scalar")
