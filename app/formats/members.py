"""Members of a JSON object as they stand in its text, so that numbers keep every digit."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import msgspec

from app.formats.json_text import decode_with

_NULL = msgspec.Raw(b"null")


class Members:
    """Takes some members out of a JSON object, in an order of its own; a member that is missing is null."""

    def __init__(self, names: Iterable[str]) -> None:
        # Attributes get names of our own, because a member may be called anything.
        attributes = {name: f"member_{number}" for number, name in enumerate(dict.fromkeys(names))}
        kind = msgspec.defstruct(
            "Members",
            [(attribute, msgspec.Raw, _NULL) for attribute in attributes.values()],
            rename={attribute: name for name, attribute in attributes.items()},
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
        self._getters = [(name, attrgetter(attribute)) for name, attribute in attributes.items()]

    def __call__(self, text: bytes) -> dict[str, bytes]:
        """Return the text of each member by its name. Raises DecodeError when `text` is no JSON object.

        What is inside a member is not checked as strictly as decode_json does.
        """
        found = decode_with(self._decoder, text)
        return {name: bytes(get(found)) for name, get in self._getters}
