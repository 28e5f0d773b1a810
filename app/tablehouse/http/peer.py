"""The way to other workers: aiohttp's client, bounded in connections and time."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from tablehouse.errors import DeadlineExceeded, OwnerUnreachable, Unauthenticated
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_with
from tablehouse.http.forms import PROTOCOL_VERSION, ROWS_PREFIX, VERSION, Received, form_of
from tablehouse.http.freshness import SERVED_BY
from tablehouse.http.hop import agreement_headers, hop_headers, refusal_of
from tablehouse.http.internal import (
    BATCH,
    STATUS_PATH,
    WRITE,
    WRITTEN_OFFSET,
    StatusReport,
    WriteRequest,
)
from tablehouse.http.proofs import CHALLENGE_PATH, NONCE, Met, meet
from tablehouse.model import Consistency, HostInfo, TaskStatus
from tablehouse.routing.at_host import AtHost
from tablehouse.routing.ports import (
    HOP_SHARE,
    Answered,
    Answers,
    ConditionalWrite,
    NoCommonSecret,
    Slice,
    Terms,
    Unconnected,
    Unresponsive,
    Wanted,
    unknown_write,
)
from tablehouse.routing.slices import CONTENT_TYPE, decode_slices, encode_wanted
from tablehouse.routing.strangers import Strangers
from tablehouse.tasks.questions import Question

Result = TypeVar("Result")

#: Connections to one worker, and as many again for hops that wait. What is over it waits within its own deadline, so a
#: slow peer holds up only its own.
CONNECTIONS_PER_HOST = 64

#: A peer that does not accept a connection in this many seconds counts as unreachable.
CONNECT_SECONDS = 1.0

_encode = msgspec.msgpack.Encoder().encode

_status_reports = msgspec.json.Decoder(StatusReport)

#: Statuses from here on say that a server cannot answer now.
_SERVER_ERRORS = 500

#: Workers that are remembered to have proven themselves, or not; processes that have ended are among them.
_MAX_MET = 1000


class HttpPeer:
    """Implements the query's Peer. To be used in one event loop, and closed there."""

    def __init__(self, keys: Sequence[bytes], strangers: Strangers) -> None:
        self._keys = keys
        self._strangers = strangers
        #: The workers that have proven themselves. Each session has its own, since one's requests overtake the other's.
        self._met: dict[tuple[aiohttp.ClientSession, HostInfo], Met] = {}

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        return _session()

    @cached_property
    def _waiting(self) -> aiohttp.ClientSession:
        """Hops that wait for a position hold a connection for seconds, and must not take those of the others."""
        return _session()

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._waiting.close()

    def at(self, host: HostInfo) -> Answers:
        """Return what asks `host`."""
        return AtHost(self, host)

    async def answer(
        self,
        host: HostInfo,
        table: str,
        partition: int,
        question: Question[Result],
        consistency: Consistency,
        terms: Terms,
    ) -> Answered[Result]:
        """Ask `host` about a partition that it holds; see the protocol for what it raises."""
        seconds = terms.timeout * HOP_SHARE
        form, headers = form_of(question), hop_headers(host, consistency, terms, seconds)
        path, content = form.request(table, partition, question)
        if content is not None:
            headers["Content-Type"] = CONTENT_TYPE
        status, got, body = await self._send(self._session_for(terms), host, path, headers, seconds, content)
        try:
            if status not in {200, 204} or got[VERSION] != PROTOCOL_VERSION:
                raise refusal_of(status, got, body)
            return form.answer(host, partition, question, Received(status, got, body))
        except (KeyError, ValueError, RecursionError) as error:
            raise OwnerUnreachable(f"its answer cannot be understood: {error!r}") from None

    async def answer_many(
        self, host: HostInfo, table: str, wanted: Sequence[Wanted], consistency: Consistency, terms: Terms
    ) -> Answered[Sequence[Slice]]:
        """Ask `host` for keys of some partitions that it holds; see the protocol for what it raises."""
        seconds = terms.timeout * HOP_SHARE
        headers = {**hop_headers(host, consistency, terms, seconds), "Content-Type": CONTENT_TYPE}
        path, content = f"{ROWS_PREFIX}{table}{BATCH}", encode_wanted(wanted)
        status, got, body = await self._send(self._session_for(terms), host, path, headers, seconds, content)
        if status != 200 or got.get(VERSION) != PROTOCOL_VERSION or SERVED_BY not in got:  # noqa: PLR2004
            raise refusal_of(status, got, body)
        return Answered(decode_slices(body, wanted), got[SERVED_BY])

    async def write(self, host: HostInfo, write: ConditionalWrite, terms: Terms) -> int:
        """Ask `host` to write a row of a partition that it owns; see the protocol for what it raises."""
        seconds = terms.timeout * HOP_SHARE
        # The asked worker has to answer while this one still waits.
        headers = {**agreement_headers(host, terms, seconds * HOP_SHARE), "Content-Type": CONTENT_TYPE}
        path = f"{ROWS_PREFIX}{write.table}/{write.partition}{WRITE}"
        content = _encode(WriteRequest(write.stored_key, write.key, write.value, write.condition))
        try:
            # It waits for what others write, as reads wait for positions.
            status, got, body = await self._send(self._waiting, host, path, headers, seconds, content)
        except Unconnected:
            raise
        except OwnerUnreachable as error:
            raise unknown_write(host, error) from None
        if status != 204 or got.get(VERSION) != PROTOCOL_VERSION:  # noqa: PLR2004
            raise refusal_of(status, got, body)
        try:
            return int(got[WRITTEN_OFFSET])
        except (KeyError, ValueError) as error:
            raise DeadlineExceeded(f"the write may have happened: the answer has no offset: {error!r}") from None

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109
        """List the tasks of `host`; raises OwnerUnreachable."""
        status, got, body = await self._send(self._session, host, STATUS_PATH, {VERSION: PROTOCOL_VERSION}, timeout)
        if status != 200:  # noqa: PLR2004
            raise refusal_of(status, got, body)
        try:
            report = decode_with(_status_reports, body)
        except DecodeError as error:
            raise OwnerUnreachable(f"its status cannot be understood: {error}") from None
        if report.worker_id != host.worker_id:
            raise OwnerUnreachable(f"{host.url} is worker {report.worker_id!r} now, not {host.worker_id!r}")
        return report.tasks

    def _session_for(self, terms: Terms) -> aiohttp.ClientSession:
        return self._waiting if terms.wait > 0 else self._session

    async def _send(
        self,
        session: aiohttp.ClientSession,
        host: HostInfo,
        path: str,
        headers: Mapping[str, str],
        seconds: float,
        content: bytes | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """GET, or POST of some content; return status, headers and body, proven where the workers share a secret."""
        try:
            answer = await self._send_proven(session, host, path, headers, seconds, content)
        except NoCommonSecret as error:
            self._strangers.found(host, error.detail)
            raise
        self._strangers.met(host)
        return answer

    async def _send_proven(
        self,
        session: aiohttp.ClientSession,
        host: HostInfo,
        path: str,
        headers: Mapping[str, str],
        seconds: float,
        content: bytes | None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Do what _send() does; raises NoCommonSecret."""
        if not self._keys:
            answer = await self._exchange(session, host, path, headers, seconds, content)
            if answer[0] == Unauthenticated.status:
                raise NoCommonSecret(
                    f"{host.url} answers only workers with a secret, and this worker has none: internal_secrets of "
                    "both must have one in common"
                )
            return answer
        until = asyncio.get_running_loop().time() + seconds
        answer = await self._ask(session, host, path, headers, until, content)
        if answer[0] == Unauthenticated.status:
            # It may have another challenge by now.
            self._met.pop((session, host), None)
            answer = await self._ask(session, host, path, headers, until, content)
        return answer

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        host: HostInfo,
        path: str,
        headers: Mapping[str, str],
        until: float,
        content: bytes | None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request with its proof; raises OwnerUnreachable for an answer without one, unless it is a 401."""
        met = self._met.get((session, host)) or await self._meet(session, host, until)
        proven, asked = met.request("GET" if content is None else "POST", path, headers, content)
        status, got, body = await self._exchange(session, host, path, proven, _left(until), content)
        if status != Unauthenticated.status and not met.is_proven(asked, status, got, body):
            raise OwnerUnreachable(f"{host.url} answered without a proof of the secret")
        return status, got, body

    async def _meet(self, session: aiohttp.ClientSession, host: HostInfo, until: float) -> Met:
        """Have a worker prove itself before it is asked anything; raises OwnerUnreachable and NoCommonSecret."""
        nonce = secrets.token_hex(16)
        status, got, _ = await self._exchange(session, host, CHALLENGE_PATH, {NONCE: nonce}, _left(until), read=False)
        if status >= _SERVER_ERRORS:
            raise OwnerUnreachable(f"{host.url} answered with status {status} when it was to prove that it is a worker")
        met = meet(self._keys, host, nonce, got)
        if len(self._met) >= _MAX_MET:
            self._met.clear()
        return self._met.setdefault((session, host), met)

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        host: HostInfo,
        path: str,
        headers: Mapping[str, str],
        seconds: float,
        content: bytes | None = None,
        *,
        read: bool = True,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send these headers and no others; the body of the answer is left where it is unless it is to be read."""
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=min(CONNECT_SECONDS, seconds))
        url = URL(host.url.rstrip("/") + path, encoded=True)
        try:
            async with session.request(
                "GET" if content is None else "POST",
                url,
                data=content,
                headers=headers,
                timeout=limits,
                allow_redirects=False,
            ) as answer:
                return answer.status, answer.headers, await answer.read() if read else b""
        except aiohttp.ServerTimeoutError:
            raise Unconnected(f"no connection to {host.url} within {limits.sock_connect:g} s") from None
        except TimeoutError:
            # Where others wait for positions, the time may have gone by before there was a connection to ask on.
            kind = OwnerUnreachable if session is self._waiting else Unresponsive
            raise kind(f"no answer from {host.url} within {seconds:.3g} s") from None
        except (aiohttp.ClientConnectorError, UnicodeError) as error:
            raise Unconnected(f"{host.url}: {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise OwnerUnreachable(f"{host.url}: {error or type(error).__name__}") from None


def _left(until: float) -> float:
    # aiohttp takes a timeout of 0 for none at all.
    return max(until - asyncio.get_running_loop().time(), 0.001)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # A name is looked up for each connection: what it stood for a moment ago may be another worker by now.
        connector=aiohttp.TCPConnector(
            limit=0, limit_per_host=CONNECTIONS_PER_HOST, keepalive_timeout=60, use_dns_cache=False
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        auto_decompress=False,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
    )
