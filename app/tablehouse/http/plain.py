"""Fast path for simple GETs of rows, answered while the bytes of the request are received.

Most requests are `GET /tables/{table}/{key}` with no more than the headers that every client sends and at most `read`,
for a row that is there. They need no request object, no task and no response object, which together are two thirds of
what an answer costs (bench/README.md), and neither does the question to the worker that has the row. Every other
request falls back to the full handler and is decided there from the beginning; what is answered here would get the same
answer there.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from tablehouse.access.policy import OPEN, Policy, Right
from tablehouse.http.content_coding import MIN_BYTES, gzip_tag, gzipped, takes_gzip
from tablehouse.http.cors import NO_ORIGINS, Cors
from tablehouse.http.dispatch import REQUEST_ID, new_request_id
from tablehouse.http.held import LARGE_BYTES, HeldBytes
from tablehouse.http.hosts import Hosts
from tablehouse.http.observations import Observations
from tablehouse.http.public import ROW_TEMPLATE
from tablehouse.http.rows import entity_tag, http_date, no_row, row_lines
from tablehouse.http.target import percent_decoded
from tablehouse.http.transforms import PIECE_BYTES
from tablehouse.model import ANONYMOUS, DEFAULT_CONSISTENCY, Consistency, ReadMode
from tablehouse.routing.query import Answer, Elsewhere, Query

#: What callers accept, by the value of `read`, None without it.
_CONSISTENCIES: Mapping[bytes | None, Consistency] = {
    None: DEFAULT_CONSISTENCY,
    **{mode.encode(): Consistency(mode) for mode in ReadMode},
    ReadMode.PREFER_ACTIVE.encode(): DEFAULT_CONSISTENCY,
}

#: One whole request for a row, without a query or with `read`. The key has every byte that may stand in a path segment
#: as it is.
_REQUEST = re.compile(
    rb"GET /tables/([a-z0-9_-]+)/([A-Za-z0-9._~!$&'()*+,;=:@%-]+)(?:\?read=(any|active|prefer-active))? HTTP/1\.1\r\n"
)
_HEADER = re.compile(rb"([A-Za-z-]+):([\x20-\x7e\t]*)")
_END = b"\r\n\r\n"

#: Bound once, since looking up a member of an enum takes longer than asking the policy.
_READ = Right.READ

#: Headers that change nothing about the answer to such a request, but for one whether it is compressed; and two that do
#: not with these values.
_ACCEPT_ENCODING = b"accept-encoding"
_INDIFFERENT = frozenset({b"host", b"user-agent", _ACCEPT_ENCODING, b"accept-language"})
_INDIFFERENT_VALUES = frozenset({(b"accept", b"*/*"), (b"connection", b"keep-alive")})

#: Bytes of all headers, and how many different sets of them are remembered: each client sends the same ones every time.
_MAX_HEAD_BYTES = 4096
_HEADS_KEPT = 1024


#: What is called with the parts of an answer, or None when the full handler has to give it.
Later = Callable[[Sequence[bytes] | None], None]


class Waiting(NamedTuple):
    """A request whose answer comes later: when it began, on the clock, and what ends the wait for it."""

    began_at: float
    cancel: Callable[[], None]


class _Read(NamedTuple):
    """What is known of a request: its key, whether the client takes gzip, and when it began."""

    key: bytes
    takes_gzip: bool
    started: float


class PlainReads:
    """Answers plain requests for rows; clock is monotonic, and timeout what one request has, both in seconds."""

    def __init__(
        self,
        query: Query,
        observations: Observations,
        clock: Callable[[], float],
        timeout: float,
        held: HeldBytes,
        hosts: Hosts | None,
        cors: Cors = NO_ORIGINS,
        policy: Policy = OPEN,
    ) -> None:
        self._query = query
        self._observations = observations
        self._clock = clock
        self._timeout = timeout
        self._held = held
        self._hosts = hosts
        self._require = policy.require
        #: What every answer begins with, with a row and without one.
        common = "".join(f"{name}: {value}\r\n" for name, value in cors.every_answer.items()).encode()
        self._found = b"HTTP/1.1 200 OK\r\n" + common
        self._missing = b"HTTP/1.1 404 Not Found\r\n" + common
        #: Whether the client takes gzip, by the headers that it sends.
        self._plain_heads: dict[bytes, bool] = {}
        self._closed = False
        #: Requests for which another worker is asked.
        self._waiting = 0
        #: Set once this is closed and no other worker is asked any more.
        self.idle = asyncio.Event()

    def close(self) -> None:
        """Leave every request to the full handler, which closes connections."""
        self._closed = True
        if not self._waiting:
            self.idle.set()

    def answer(self, data: bytes, later: Later) -> Sequence[bytes] | Waiting | None:
        """Return the answer to the whole request in `data`, in parts; None when the full handler has to give it.

        For a row that another worker has, Waiting is returned, and `later` called once with what would be returned
        otherwise.
        """
        request = _REQUEST.match(data)
        takes_gzip = None if request is None or self._closed else self._takes_gzip(data[request.end() :])
        if request is None or takes_gzip is None:
            return None
        started = self._clock()
        try:
            table = request[1].decode("ascii")
            # No header of such a request is a credential.
            self._require(ANONYMOUS, _READ, table)
            key = percent_decoded(request[2])
            found = self._query.look(table, key, _CONSISTENCIES[request[3]])
            if isinstance(found, Elsewhere):
                return self._ask(found, _Read(key, takes_gzip, started), later)
        except Exception:  # noqa: BLE001 - the full handler meets it again, and reports it
            return None
        return None if found is None else self._rendered(found, _Read(key, takes_gzip, started))

    def _ask(self, there: Elsewhere, read: _Read, later: Later) -> Waiting | None:
        """Have another worker asked."""

        def done(found: Answer | None) -> None:
            self._ended()
            answer = None
            try:
                if found is not None and not self._closed:
                    answer = self._rendered(found, read)
            except Exception:  # noqa: BLE001 - as in answer()
                answer = None
            later(answer)

        forget = self._query.ask_elsewhere(there, self._timeout, done)
        if forget is None:
            return None

        def cancel() -> None:
            self._ended()
            forget()

        self._waiting += 1
        return Waiting(read.started, cancel)

    def _ended(self) -> None:
        self._waiting -= 1
        if self._closed and not self._waiting:
            self.idle.set()

    def _rendered(self, found: Answer, read: _Read) -> Sequence[bytes] | None:
        """Return the answer, and count it."""
        row = found.result.row
        if row is None:
            missing = no_row(found)
            status, beginning, payload = missing.status, self._missing, cast("bytes", missing.body)
            lines = "".join([f"{name}: {value}\r\n" for name, value in missing.headers.items()])
        else:
            status, beginning, payload = 200, self._found, row.payload
            lines = f"{row_lines(found, row)}Content-Type: {found.table.content_type}\r\n"
        if read.takes_gzip and len(payload) > PIECE_BYTES:
            return None
        body = payload
        if read.takes_gzip and len(payload) > MIN_BYTES:
            compressed = gzipped(payload)
            if compressed is not None:
                body, lines = compressed, f"{lines}Content-Encoding: gzip\r\n"
                if row is not None:
                    tag = entity_tag(found, row)
                    lines = lines.replace(tag, gzip_tag(tag))
        if len(body) > LARGE_BYTES and not self._held.has_room(len(body)):
            return None
        request_id = new_request_id()
        head = (
            f"{lines}{REQUEST_ID}: {request_id}\r\n"
            f"Content-Length: {len(body)}\r\nDate: {http_date(int(time.time()))}\r\n\r\n"
        )
        seconds = self._clock() - read.started
        self._query.count(found, seconds)
        self._observations.answered(
            method="GET",
            route=ROW_TEMPLATE,
            status=status,
            seconds=seconds,
            request_id=request_id,
            key=read.key,
            served_by=found.served_by,
        )
        if len(body) > LARGE_BYTES:
            return beginning + head.encode("latin-1"), body
        return (b"%s%s%s" % (beginning, head.encode("latin-1"), body),)

    def _takes_gzip(self, head: bytes) -> bool | None:
        """Return whether a client takes gzip, from all of a request's headers.

        None when that is not all of them, or one could change the answer in another way.
        """
        known = self._plain_heads.get(head)
        if known is not None:
            return known
        if len(head) > _MAX_HEAD_BYTES or head.find(_END) != len(head) - len(_END):
            return None
        hosts: list[str] = []
        codings: list[str] = []
        for line in head[: -len(_END)].split(b"\r\n"):
            header = _HEADER.fullmatch(line)
            if header is None:
                return None
            name = header[1].lower()
            if name not in _INDIFFERENT and (name, header[2].strip(b" \t").lower()) not in _INDIFFERENT_VALUES:
                return None
            if name == b"host":
                hosts.append(header[2].decode("ascii"))
            elif name == _ACCEPT_ENCODING:
                codings.append(header[2].decode("ascii"))
        if len(hosts) != 1 or (self._hosts is not None and not self._hosts.accepts(hosts[0])):
            return None
        if len(self._plain_heads) >= _HEADS_KEPT:
            self._plain_heads.clear()
        found = self._plain_heads[head] = bool(codings) and takes_gzip(",".join(codings))
        return found
