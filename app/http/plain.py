"""Rows that are asked for in the plainest way, answered while the bytes of the request are received.

Most requests are `GET /tables/{table}/{key}` with no more than the headers that every client sends, for a row that this
worker has. They need no request object, no task and no response object, which together are two thirds of what an answer
costs (bench/README.md). Whatever is not that plain goes the long way and is decided there from the beginning; what is
answered here would get the same answer there.
"""

import re
import time
from collections.abc import Callable, Sequence

from app.http.answers import EVERY_ANSWER
from app.http.dispatch import REQUEST_ID, new_request_id
from app.http.freshness import SERVED_BY
from app.http.held import LARGE_BYTES, HeldBytes
from app.http.hosts import Hosts
from app.http.observations import Observations
from app.http.public import ROW_TEMPLATE
from app.http.rows import http_date, row_headers
from app.http.target import percent_decoded
from app.routing.query import Query

#: One whole request for a row without a query. The key has every byte that may stand in a path segment as it is.
_REQUEST = re.compile(rb"GET /tables/([a-z0-9_-]+)/([A-Za-z0-9._~!$&'()*+,;=:@%-]+) HTTP/1\.1\r\n")
_HEADER = re.compile(rb"([A-Za-z-]+):([\x20-\x7e\t]*)")
_END = b"\r\n\r\n"

#: What every answer begins with.
_BEGINNING = b"HTTP/1.1 200 OK\r\n%b" % "".join(f"{name}: {value}\r\n" for name, value in EVERY_ANSWER.items()).encode()

#: Headers that change nothing about the answer to such a request, and two that do not with these values.
_INDIFFERENT = frozenset({b"host", b"user-agent", b"accept-encoding", b"accept-language"})
_INDIFFERENT_VALUES = frozenset({(b"accept", b"*/*"), (b"connection", b"keep-alive")})

#: Bytes of all headers, and how many different sets of them are remembered: each client sends the same ones every time.
_MAX_HEAD_BYTES = 4096
_HEADS_KEPT = 1024


class PlainReads:
    """Answers plain requests for rows; clock is monotonic, in seconds."""

    def __init__(
        self, query: Query, observations: Observations, clock: Callable[[], float], held: HeldBytes, hosts: Hosts | None
    ) -> None:
        self._query = query
        self._observations = observations
        self._clock = clock
        self._held = held
        self._hosts = hosts
        self._plain_heads: set[bytes] = set()
        self._closed = False

    def close(self) -> None:
        """Leave every request to the long way, which closes connections."""
        self._closed = True

    def answer(self, data: bytes) -> Sequence[bytes] | None:
        """Return the answer to the whole request in `data`, in parts; None when it has to go the long way."""
        request = _REQUEST.match(data)
        if request is None or self._closed or not self._is_plain(data[request.end() :]):
            return None
        started = self._clock()
        try:
            key = percent_decoded(request[2].decode("ascii"))
            found = self._query.read_here(request[1].decode("ascii"), key)
        except Exception:  # noqa: BLE001 - the long way meets it again, and reports it
            return None
        if found is None or found.result.row is None:
            return None
        request_id, body = new_request_id(), found.result.row.payload
        if len(body) > LARGE_BYTES and not self._held.has_room(len(body)):
            return None
        headers = row_headers(found, found.result.row)
        headers["Content-Type"] = found.table.content_type
        headers["Content-Length"] = str(len(body))
        headers["Date"] = http_date(int(time.time()))
        headers[REQUEST_ID] = request_id
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        self._observations.answered(
            method="GET",
            route=ROW_TEMPLATE,
            status=200,
            seconds=self._clock() - started,
            request_id=request_id,
            key=key,
            served_by=headers[SERVED_BY],
        )
        if len(body) > LARGE_BYTES:
            return b"%s%s\r\n" % (_BEGINNING, head.encode("latin-1")), body
        return (b"%s%s\r\n%s" % (_BEGINNING, head.encode("latin-1"), body),)

    def _is_plain(self, head: bytes) -> bool:
        """Say whether this is all of a request's headers, with nothing that could change its answer."""
        if head in self._plain_heads:
            return True
        if len(head) > _MAX_HEAD_BYTES or head.find(_END) != len(head) - len(_END):
            return False
        hosts: list[str] = []
        for line in head[: -len(_END)].split(b"\r\n"):
            header = _HEADER.fullmatch(line)
            if header is None:
                return False
            name = header[1].lower()
            if name not in _INDIFFERENT and (name, header[2].strip(b" \t").lower()) not in _INDIFFERENT_VALUES:
                return False
            if name == b"host":
                hosts.append(header[2].decode("ascii"))
        if len(hosts) != 1 or (self._hosts is not None and not self._hosts.accepts(hosts[0])):
            return False
        if len(self._plain_heads) >= _HEADS_KEPT:
            self._plain_heads.clear()
        self._plain_heads.add(head)
        return True
