"""Which pages of other origins a browser lets read answers and write rows (the Fetch standard, section 3.3).

Browsers enforce it: to every other client these headers say nothing.
"""

import re
from collections.abc import Mapping, Sequence

from tablehouse.http.answers import EVERY_ANSWER
from tablehouse.http.freshness import LAG_RECORDS, PARTITION, POSITION, REJECTED_RECORDS, ROLE, SERVED_BY, STALENESS_MS

#: Means every origin in the list of those that are allowed.
ANY_ORIGIN = "*"

#: Seconds for which a browser need not ask again whether it may send a request.
MAX_AGE_SECONDS = 600

#: The headers of answers that pages may read, besides those that they always may.
EXPOSED = (
    "ETag",
    "Location",
    "Retry-After",
    "X-Request-Id",
    PARTITION,
    POSITION,
    ROLE,
    LAG_RECORDS,
    STALENESS_MS,
    REJECTED_RECORDS,
    SERVED_BY,
    "Tablehouse-Schema-Id",
    "Tablehouse-Plan",
)

_HEADER_NAMES = re.compile(r"[\w!#$%&'*+.^`|~, \t-]{0,4096}", re.ASCII)


class Cors:
    """Allows pages of some origins; without any, every answer is as if there was nothing of the kind."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)
        varies = self._origins and ANY_ORIGIN not in self._origins
        #: The headers of every answer.
        self.every_answer: Mapping[str, str] = (
            {**EVERY_ANSWER, "Vary": f"{EVERY_ANSWER['Vary']}, Origin"} if varies else EVERY_ANSWER
        )

    def to_origin(self, origin: str | None) -> Mapping[str, str]:
        """Return the headers that let a page of an origin read an answer; none when it may not."""
        if origin is None:
            return {}
        exposed = {"Access-Control-Expose-Headers": ", ".join(EXPOSED)}
        if ANY_ORIGIN in self._origins:
            return {"Access-Control-Allow-Origin": ANY_ORIGIN, **exposed}
        if origin in self._origins:
            # What a proxy in front asks for, as cookies. An origin that is not named never gets to use them.
            return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", **exposed}
        return {}

    def preflight(self, headers: Mapping[str, str], methods: Sequence[str]) -> Mapping[str, str]:
        """Return the headers that tell a browser which requests a page may send, if that is what it asks."""
        if "Access-Control-Request-Method" not in headers or not self.to_origin(headers.get("Origin")):
            return {}
        allowed = {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
        }
        # A header that means nothing here does no harm, and a proxy in front may need one.
        names = headers.get("Access-Control-Request-Headers", "")
        if names and _HEADER_NAMES.fullmatch(names):
            allowed["Access-Control-Allow-Headers"] = names
        return allowed


#: Pages of other origins may read nothing.
NO_ORIGINS = Cors(())
