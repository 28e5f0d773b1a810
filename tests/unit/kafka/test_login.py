"""Logins at a server that is no broker of ours; those at real brokers are in tests/broker/test_security.py."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from tablehouse.errors import BrokersRefuse
from tablehouse.kafka.client import Connection
from tablehouse.kafka.login import check_login
from tablehouse.kafka.security import Security

_MECHANISM = "SCRAM-SHA-512"
_METADATA, _HANDSHAKE, _API_VERSIONS, _AUTHENTICATE = 3, 17, 18, 36

#: What the impostor answers to the client's first message.
Answer = Callable[[bytes], bytes]


def _text(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


@asynccontextmanager
async def _impostor(first: Answer, last: bytes) -> AsyncIterator[str]:
    """Speak Kafka's protocol as far as SCRAM goes; gives the address."""

    def body(kind: int, request: bytes) -> bytes:
        if kind == _API_VERSIONS:
            # Metadata as Apache Kafka 0.10 knows it.
            kinds = ((_METADATA, 0, 3), (_HANDSHAKE, 0, 1), (_API_VERSIONS, 0, 0), (_AUTHENTICATE, 0, 0))
            return struct.pack(">hi", 0, len(kinds)) + b"".join(struct.pack(">hhh", *one) for one in kinds)
        if kind == _HANDSHAKE:
            return struct.pack(">hi", 0, 1) + _text(_MECHANISM.encode())
        answer = first(request.partition(b",r=")[2]) if b"n,,n=" in request else last
        return struct.pack(">hhi", 0, -1, len(answer)) + answer

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                kind, _version, number = struct.unpack(">hhi", request[:8])
                answer = struct.pack(">i", number) + body(kind, request[8:])
                writer.write(struct.pack(">i", len(answer)) + answer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _challenge(nonce: bytes) -> bytes:
    return b"r=%b0,s=%b,i=4096" % (nonce, base64.b64encode(b"salt"))


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (_challenge, b"v=" + base64.b64encode(b"a signature of another password")),
        (_challenge, b"e=other-error"),
        (_challenge, b"v=\xff"),
        (lambda _nonce: _challenge(b"of its own"), b""),
        (lambda _nonce: b"no SCRAM", b""),
    ],
)
async def test_who_does_not_prove_to_know_the_password_is_refused_by_name(first: Answer, last: bytes) -> None:
    security = Security("SASL_PLAINTEXT", _MECHANISM, "worker", SecretStr("secret"))
    async with _impostor(first, last) as address:
        with pytest.raises(BrokersRefuse) as caught:
            await check_login(Connection(address, "test", security=security))
    assert f"{address} does not prove that it knows the password of worker ({_MECHANISM})" in str(caught.value)


async def test_a_broker_that_may_create_what_it_is_asked_about_is_refused_as_too_old() -> None:
    async with _impostor(_challenge, b"") as address:
        with pytest.raises(BrokersRefuse) as caught:
            await check_login(Connection(address, "test"))
    assert f"{address} is too old: the broker supports Metadata requests only up to version 3" in str(caught.value)
    assert str(caught.value).endswith("Apache Kafka 2.5 or newer is required")
