"""Members of a JSON object copied from its text, so that numbers keep every digit."""

import re
from collections.abc import Callable, Iterable
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from tablehouse.formats.json_text import decode_with

_NULL = msgspec.Raw(b"null")

#: Characters that JSON escapes. msgspec does not accept them in the name of a struct's field.
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


class Members:
    """Extracts members of a JSON object in a given order; a missing member is null."""

    def __init__(self, names: Iterable[str]) -> None:
        wanted = list(dict.fromkeys(names))
        self._missing: dict[str, msgspec.Raw] = {}
        if any(map(_ESCAPED.search, wanted)):
            # About twice as slow as a struct, since it also keeps all other members.
            self._missing = dict.fromkeys(wanted, _NULL)
            self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(dict[str, msgspec.Raw])
            self._getters: list[tuple[str, Callable[[Any], Any]]] = [(name, itemgetter(name)) for name in wanted]
            return
        # Attributes get generated names, because a member can have any name.
        attributes = {name: f"member_{number}" for number, name in enumerate(wanted)}
        kind = msgspec.defstruct(
            "Members",
            [(attribute, msgspec.Raw, _NULL) for attribute in attributes.values()],
            rename={attribute: name for name, attribute in attributes.items()},
        )
        self._decoder = msgspec.json.Decoder(kind)
        self._getters = [(name, attrgetter(attribute)) for name, attribute in attributes.items()]

    def __call__(self, text: bytes) -> dict[str, bytes]:
        """Return the text of each member by its name. Raises DecodeError if `text` is not a JSON object.

        The content of members is checked less strictly than in decode_json.
        """
        return self._texts(decode_with(self._decoder, text))

    def of_checked(self, text: bytes) -> dict[str, bytes]:
        """Return the same for a text that was checked before."""
        return self._texts(self._decoder.decode(text))

    def _texts(self, found: Any) -> dict[str, bytes]:
        if self._missing:
            found = self._missing | found
        return {name: bytes(get(found)) for name, get in self._getters}
