"""How a link begins: an HTTP/1.1 upgrade on the internal listener, by which both workers know each other.

The asking worker sends a nonce, who it is and who it means; the other answers 101 with a nonce of its own and who it
is. Where the workers share a secret, that answer has a MAC over all of it, and over the URL at which the asking worker
expects the other: nobody else can answer, or pass on what another one answers. Keys for the two directions of the link
are made of the secret and both nonces; with its first packet the asking worker proves that it has the secret too.

A worker that does not know links, as one of an older version, answers anything but 101, and is asked over HTTP.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from tablehouse.link.packets import BadPacket, Seal
from tablehouse.model import HostInfo
from tablehouse.routing.ports import NoCommonSecret, NotAsked, name_of

PATH = "/internal/v1/link"

#: Changes when workers with different numbers cannot use a link with each other.
VERSION = "1"

#: The longest head of an upgrade, or of its answer.
MAX_HEAD_BYTES = 8 * 1024

END = b"\r\n\r\n"

#: Proofs that an asking worker looks at; secrets are two while they are exchanged.
_MAX_SECRETS = 16

_PROTOCOL = f"tablehouse-link/{VERSION}"
_MEANT = "tablehouse-worker"
_ASKING = "tablehouse-asking-worker"
_NONCE = "tablehouse-nonce"
_PROOF = "tablehouse-proof"
_NONCES = re.compile("[0-9a-f]{32}")
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")


class NoLink(Exception):
    """The other worker does not use links, or not this version of them."""


class Hello(NamedTuple):
    """What an asking worker sends: who it means, who it is, each as `id incarnation`, and a nonce."""

    meant: str
    asking: str
    nonce: str


class Seals(NamedTuple):
    """The MACs of what a worker sends on a link, and of what it receives; none where there is no secret.

    first is what the asking worker sends before its first packet: which of the proofs it took.
    """

    sent: Seal
    received: Seal
    first: bytes = b""


def request(host: HostInfo, authority: str, asking: str, nonce: str) -> bytes:
    """Write the request for a link to a worker."""
    lines = [
        f"GET {PATH} HTTP/1.1",
        f"Host: {authority}",
        "Connection: Upgrade",
        f"Upgrade: {_PROTOCOL}",
        f"{_MEANT}: {name_of(host)}",
        f"{_ASKING}: {asking}",
        f"{_NONCE}: {nonce}",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode("ascii")


def is_request(data: bytes) -> bool:
    """Return whether the first bytes of a connection are those of a request for a link."""
    return data.startswith(b"GET " + PATH.encode() + b" ")


def read_request(head: bytes) -> Hello:
    """Read a whole request for a link; raises NoLink for one that is none, or of another version."""
    if head.find(END) != len(head) - len(END) or len(head) > MAX_HEAD_BYTES:
        raise NoLink("a link begins with the whole head of a request, and nothing after it")
    fields = _fields(head)
    if fields.get("upgrade") != _PROTOCOL:
        raise NoLink(f"links of this worker are {_PROTOCOL}")
    hello = Hello(fields.get(_MEANT, ""), fields.get(_ASKING, ""), fields.get(_NONCE, ""))
    if not _NONCES.fullmatch(hello.nonce):
        raise NoLink("a link begins with a nonce of 32 hexadecimal digits")
    return hello


def answer(hello: Hello, me: HostInfo, nonce: str, keys: Sequence[bytes]) -> bytes:
    """Write the answer to a request for a link, with a proof for each secret."""
    proofs = ",".join(_proof(key, hello, me, nonce).hex() for key in keys)
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Connection: Upgrade",
        f"Upgrade: {_PROTOCOL}",
        f"{_MEANT}: {name_of(me)}",
        f"{_NONCE}: {nonce}",
        *([f"{_PROOF}: {proofs}"] if proofs else []),
    ]
    return "\r\n".join([*lines, "\r\n"]).encode("ascii")


def refusal(status: int, reason: str, detail: str) -> bytes:
    """Write an answer other than 101, after which the connection is closed."""
    body = (detail + "\n").encode()
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


def read_answer(head: bytes, hello: Hello, host: HostInfo, keys: Sequence[bytes]) -> Seals:
    """Read the answer of a worker, and return the seals of the link to it.

    Raises NoLink for a worker that has none, NotAsked for another one than was meant, and NoCommonSecret for
    one that does not prove to have a secret of this worker.
    """
    status = _STATUS.match(head)
    if status is None:
        raise NotAsked(f"{host.url} does not answer as a worker does")
    fields = _fields(head)
    if status[1] != b"101" or fields.get("upgrade") != _PROTOCOL:
        raise NoLink(f"{host.url} answered a request for a link with status {int(status[1])}")
    answering, nonce = fields.get(_MEANT, ""), fields.get(_NONCE, "")
    if answering != name_of(host):
        raise NotAsked(f"{host.url} is worker {answering!r} (id and incarnation) now, not {name_of(host)!r}")
    proofs = fields.get(_PROOF, "")
    if not keys and proofs:
        raise NoCommonSecret(
            f"{host.url} answers only workers with a secret, and this worker has none: internal_secrets of both must "
            "have one in common"
        )
    if not keys:
        return Seals(Seal(None), Seal(None))
    for place, proof in enumerate(proofs.encode("utf-8", "replace").split(b",")[:_MAX_SECRETS]):
        for key in keys:
            if hmac.compare_digest(proof, _proof(key, hello, host, nonce).hex().encode()):
                sent, received = _directions(key, hello, nonce)
                return Seals(sent, received, bytes((place,)))
    raise NoCommonSecret(
        f"{host.url} does not prove to be worker {host.worker_id} with a secret of this one: internal_secrets of both "
        "must have one in common"
    )


def answering_seals(keys: Sequence[bytes], first: bytes, hello: Hello, nonce: str) -> Seals:
    """Return the seals of a link for the worker that answers on it; raises BadPacket for a proof that it did not give.

    first is what the asking worker sends before its first packet; empty without secrets.
    """
    if not keys:
        return Seals(Seal(None), Seal(None))
    if first[0] >= len(keys):
        raise BadPacket("a link that begins with a proof that this worker did not give")
    asking, answering = _directions(keys[first[0]], hello, nonce)
    return Seals(answering, asking)


def _directions(key: bytes, hello: Hello, nonce: str) -> tuple[Seal, Seal]:
    """Return the seals of what the asking worker sends, and of what the answering one does."""
    return Seal(_derived(key, "asking", hello, nonce)), Seal(_derived(key, "answering", hello, nonce))


def _proof(key: bytes, hello: Hello, me: HostInfo, nonce: str) -> bytes:
    return _derived(key, f"proof of {name_of(me)} at {me.url}", hello, nonce)


def _derived(key: bytes, purpose: str, hello: Hello, nonce: str) -> bytes:
    text = "\n".join(["link", purpose, *hello, nonce])
    return blake2b(text.encode("utf-8", "surrogateescape"), key=key, digest_size=32).digest()


def _fields(head: bytes) -> Mapping[str, str]:
    """Return the header fields of a head by their names in lower case; the last of several with one name."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
