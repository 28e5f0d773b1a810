"""Reads keys and values of a sample as a worker would, and counts the readable ones."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from tablehouse.formats.errors import DECODE_ERRORS, DecodeError, reason_of
from tablehouse.formats.schemas import SchemaName, SchemaNeeded, Schemas
from tablehouse.inspection.sample import SampledRecord

#: Seconds to wait for one schema.
SCHEMA_TIMEOUT_SECONDS = 10.0

#: Maximum schemas of a topic whose kind is requested; random bytes may look like many schema ids.
MAX_SCHEMAS = 20

#: Maximum schemas per record: the one it was written with, and the one of its row.
_SCHEMAS_PER_RECORD = 2

Given = TypeVar("Given")
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Fit:
    """How many records can be read in a format, and why the first unreadable one cannot."""

    fitting: int
    total: int
    problem: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether there are records and all of them can be read."""
        return 0 < self.total == self.fitting

    def __str__(self) -> str:
        return f"{self.fitting} of {self.total}"


class Reading:
    """Reads with schemas, which are fetched as needed until the registry does not answer in time."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas
        self._silence: str | None = None

    async def read(self, decode: Callable[[Given], Read], given: Given) -> Read:
        """Return the result of a decoder; raises DecodeError."""
        for _ in range(_SCHEMAS_PER_RECORD + 1):
            try:
                return decode(given)
            except SchemaNeeded as error:
                await self._fetch(error.needed)
            except DECODE_ERRORS as error:
                raise DecodeError(reason_of(error)) from error
        raise DecodeError("it needs too many schemas")

    async def _fetch(self, needed: SchemaName | str) -> None:
        if self._silence is not None:
            raise DecodeError(self._silence)
        try:
            async with asyncio.timeout(SCHEMA_TIMEOUT_SECONDS):
                await self.schemas.fetch(needed)
        except TimeoutError:
            self._silence = f"after {SCHEMA_TIMEOUT_SECONDS:g} s there is no {self.schemas.describe(needed)}"
            raise DecodeError(self._silence) from None

    async def fit(self, records: Iterable[SampledRecord], decode: Callable[[SampledRecord], object]) -> Fit:
        """Count the records that a decoder can read."""
        fitting, total, problem = 0, 0, None
        for record in records:
            total += 1
            try:
                await self.read(decode, record)
            except DecodeError as error:
                problem = problem or f"{record}: {error}"
            else:
                fitting += 1
        return Fit(fitting, total, problem)
