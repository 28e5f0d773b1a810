"""Example requests, chosen for the current cluster, which are printed as curl commands or made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

import httpx
import msgspec

from tablehouse.demo.workers import DemoWorker

_INDENT = "python3 -m json.tool"


@dataclass(frozen=True, slots=True)
class Example:
    """One request and its expected response: its status, the `code` of a problem, and the id of the answering worker.

    `code` is None for a response without a problem, and `served_by` if any worker may answer. `pipe` is a command that
    formats a long response.
    """

    about: str
    options: str
    url: str
    status: HTTPStatus = HTTPStatus.OK
    code: str | None = None
    served_by: str | None = None
    pipe: str | None = None

    @property
    def curl(self) -> str:
        """The command that makes the request."""
        command = f"curl {self.options} '{self.url}'"
        return command if self.pipe is None else f"{command} | {self.pipe}"

    async def differs(self, client: httpx.AsyncClient) -> str | None:
        """Make the request and return what differs from the expected response; None if nothing does."""
        try:
            answer = await client.request("HEAD" if "I" in self.options else "GET", self.url)
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}"
        if answer.status_code != self.status:
            return f"status {answer.status_code} instead of {self.status.value}: {answer.text[:500]}"
        if self.code is not None and (code := answer.json()["code"]) != self.code:
            return f"code {code} instead of {self.code}"
        by = answer.headers.get("Tablehouse-Served-By")
        if self.served_by is not None and by != self.served_by:
            return f"served by {by} instead of {self.served_by}"
        return None


async def find_examples(
    client: httpx.AsyncClient, workers: Sequence[DemoWorker], flights: Iterable[bytes]
) -> list[Example]:
    """Return requests for every kind of response, most of them to the first of these workers.

    Among the keys of flights it looks for one that this worker holds and one that it forwards; if there is none,
    because a worker has just died, that example is omitted.
    """
    asked, last = workers[0], workers[-1]
    tables = f"{asked.url}/tables"
    local = forwarded = None
    for key in flights:
        active = await _locate(client, f"{tables}/flights:locate?key={quote(key, safe='')}")
        if active is None:
            continue
        url = f"{tables}/flights/{quote(key, safe='')}"
        if active.url == asked.internal_url:
            about = f"A flight that worker {asked.number} holds: it answers itself."
            local = local or Example(about, "-i", url, served_by=active.worker)
        else:
            about = f"A flight that another worker holds: worker {asked.number} forwards the request."
            forwarded = forwarded or Example(about, "-i", url, served_by=active.worker)
        if local and forwarded:
            break
    return [
        *(example for example in (local, forwarded) if example is not None),
        Example("The freshness of an answer is in its headers.", "-sI", f"{last.url}/tables/planes/N14228"),
        Example(
            "A key with a space, percent-encoded.",
            "-s",
            f"{last.url}/tables/weather/EWR%202013-01-01T06:00:00Z",
        ),
        Example(
            "No such flight: 404, only from a caught-up owner.",
            "-i",
            f"{tables}/flights/no-such-flight",
            HTTPStatus.NOT_FOUND,
            "key_not_found",
        ),
        Example(
            "An invalid key, since it is not UTF-8: 400.",
            "-i",
            f"{tables}/flights/%FF",
            HTTPStatus.BAD_REQUEST,
            "invalid_key",
        ),
        Example("Rows in the order of their keys.", "-s", f"{tables}/planes:scan?prefix=N14&limit=2", pipe=_INDENT),
        Example(
            "Rows that match a condition, and some of their members.",
            "-s",
            f"{tables}/planes:scan?where=seats%20%3E%20400&fields=model,seats&limit=2",
            pipe=_INDENT,
        ),
        Example("The exact number of rows.", "-s", f"{last.url}/tables/planes:count?prefix=N14"),
        Example("The tables.", "-s", tables, pipe=_INDENT),
        Example("The workers of each partition.", "-s", f"{asked.url}/cluster", pipe=_INDENT),
    ]


class _Host(msgspec.Struct, frozen=True):
    worker: str
    url: str


class _Location(msgspec.Struct, frozen=True):
    active: _Host | None


class _Answer(msgspec.Struct, frozen=True):
    """The location of a key; a string key has one wire form, and thus one location."""

    locations: tuple[_Location]


async def _locate(client: httpx.AsyncClient, url: str) -> _Host | None:
    """Return the worker that holds a key; None if there is none, or if the called worker does not answer."""
    try:
        answer = await client.get(url)
    except httpx.TransportError:
        return None
    if answer.status_code != HTTPStatus.OK:
        return None
    return msgspec.json.decode(answer.content, type=_Answer).locations[0].active
