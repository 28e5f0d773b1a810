"""What a fold is: the batch of decoded records of one lane batch becomes the rows it changes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Decoded(NamedTuple):
    """A source record in the table's terms: `payload` is None for a tombstone, `key` the prefixed stored key."""

    key: bytes
    payload: bytes | None
    timestamp_ms: int
    offset: int


#: Returns the row bytes under a prefixed key as all earlier records left it, None when there is none.
Lookup = Callable[[bytes], bytes | None]


class Fold(Protocol):
    """A fold: named in the table's fingerprint, since another fold over the same topic is another table."""

    name: str

    def __call__(self, records: Sequence[Decoded], lookup: Lookup) -> dict[bytes, bytes | None]:
        """Return the final row bytes of every key that the records change, None for a deleted one.

        The result may depend on nothing but the records and what lookup returns, so that it is the same wherever and
        whenever it is computed.
        """
