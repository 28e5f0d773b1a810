"""Reads keys and values of a sample as a worker would, and counts what can be read."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from tablehouse.formats.errors import DECODE_ERRORS, DecodeError, reason_of
from tablehouse.formats.schemas import SchemaName, SchemaNeeded, Schemas
from tablehouse.inspection.sample import SampledRecord

#: Seconds that one schema is waited for.
SCHEMA_TIMEOUT_SECONDS = 10.0

#: Schemas of a topic that are asked for to see which kind they are; random bytes may look like many.
MAX_SCHEMAS = 20

#: Schemas that one record may need: the one it was written with, and the one of its row.
_SCHEMAS_PER_RECORD = 2

Given = TypeVar("Given")
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Fit:
    """How many of some records can be read in a format, and why the first that cannot is not."""

    fitting: int
    total: int
    problem: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether there are records, and all can be read."""
        return 0 < self.total == self.fitting

    def __str__(self) -> str:
        return f"{self.fitting} of {self.total}"


class Reading:
    """Reads with schemas, which are fetched when they are needed, until a registry has not answered in time."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas
        self._silence: str | None = None

    async def read(self, decode: Callable[[Given], Read], given: Given) -> Read:
        """Return what a decoder makes of something; raises DecodeError."""
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
        """Count the records that a decoder reads."""
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
