"""What workers that share a secret prove to each other with every request, without sending the secret.

An asking worker first has the other one prove itself (`CHALLENGE_PATH`): it sends a nonce, and gets a challenge with a
MAC over both and over the worker that it expects to reach. Only then does it send requests. Each has a number, and
a MAC over the challenge, the number and everything in it that matters; each answer has one over the request's number
and everything in the answer. So nothing that was recorded, changed or made up without the secret is answered, or
believed.

The challenge is random and lives no longer than the process. Of each peer that was given it, the numbers that were used
are remembered, so a request is answered once.
"""

import hmac
import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b, sha256
from typing import NamedTuple

from aiohttp import web
from pydantic import SecretStr

from tablehouse.errors import OwnerUnreachable, Unauthenticated
from tablehouse.model import HostInfo
from tablehouse.routing.ports import NoCommonSecret, name_of

CHALLENGE_PATH = "/internal/v1/challenge"

NONCE = "Tablehouse-Nonce"
CHALLENGE = "Tablehouse-Challenge"
PROOF = "Tablehouse-Proof"
BODY_DIGEST = "Tablehouse-Body-Digest"

#: The id and the incarnation of the worker that is meant by a request, or answers a nonce. It proves nothing, and tells
#: a process that has taken another one's address, as a new pod does, from the one that had it.
WORKER = "Tablehouse-Worker"

#: Requests of one peer may overtake each other by this many, on its connections and in its queues.
_WINDOW = 4096
_WINDOW_MASK = (1 << _WINDOW) - 1

#: Peers whose numbers are remembered. When there are more, all have to be given a new challenge.
_MAX_PEERS = 10_000

_PURPOSE = b"Tablehouse, proofs between workers, 1"


def keys_of(given: Sequence[SecretStr]) -> tuple[bytes, ...]:
    """Return the keys that are made of secrets."""
    return tuple(hmac.digest(secret.get_secret_value().encode(), _PURPOSE, "sha256") for secret in given)


class Met:
    """What an asking worker knows of a peer that has proven itself; everything that is sent to it is numbered."""

    def __init__(self, key: bytes, challenge: str) -> None:
        self._key = key
        self._challenge = challenge
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[dict[str, str], str]:
        """Return the headers of a request with its proof, and what its answer has to be a proof for."""
        proven = dict(headers)
        if body is not None:
            proven[BODY_DIGEST] = sha256(body).hexdigest()
        asked = f"{self._challenge} {self._name} {next(self._numbers)}"
        mac = _mac(self._key, "request", asked, f"{method} {target}", proven.items())
        proven[PROOF] = f"{asked.partition(' ')[2]} {mac}"
        return proven, asked

    def is_proven(self, asked: str, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether an answer is the peer's to what was asked."""
        mac = _mac(self._key, "answer", asked, _answered(status, body), headers.items())
        return hmac.compare_digest(headers.get(PROOF, "").encode("utf-8", "replace"), mac.encode())


def meet(keys: Sequence[bytes], host: HostInfo, nonce: str, headers: Mapping[str, str]) -> Met:
    """Return the peer that answered a nonce.

    Raises OwnerUnreachable when it says that it is another process, and NoCommonSecret when it does not prove to be
    that worker.
    """
    challenge = headers.get(CHALLENGE, "")
    shown = [proof.encode("utf-8", "replace") for proof in headers.get(PROOF, "").split(",")]
    for key in keys:
        mac = _introduction(key, nonce, challenge, host).encode()
        if any(hmac.compare_digest(proof, mac) for proof in shown):
            return Met(key, challenge)
    answers = headers.get(WORKER)
    if answers not in {None, name_of(host)}:
        raise OwnerUnreachable(f"{host.url} is worker {answers!r} (id and incarnation) now, not {name_of(host)!r}")
    raise NoCommonSecret(
        f"{host.url} does not prove to be worker {host.worker_id} with a secret of this one: internal_secrets of both "
        "must have one in common"
    )


class Proven(NamedTuple):
    """A request that was proven; body_digest is that of the body that belongs to it, None without one."""

    body_digest: str | None
    seal: Callable[[web.Response], None]


class Callers:
    """Answers the nonces of asking workers, and checks what they send then; without secrets it takes every request."""

    def __init__(self, keys: Sequence[bytes], me: Callable[[], HostInfo]) -> None:
        self._keys = keys
        self._me = me
        self._challenge = secrets.token_hex(16)
        #: By peer, the highest number that was used, and which of those up to it were; the lowest bit is its own.
        self._used: dict[str, tuple[int, int]] = {}

    @cached_property
    def called(self) -> str:
        """What this worker is called in WORKER, from its first request on."""
        return name_of(self._me())

    def introduction(self, nonce: str) -> dict[str, str]:
        """Return the headers that prove which worker answers a nonce, under each of the secrets."""
        me = self._me()
        proofs = (_introduction(key, nonce, self._challenge, me) for key in self._keys)
        return {CHALLENGE: self._challenge, WORKER: name_of(me), PROOF: ",".join(proofs)}

    def check(self, request: web.BaseRequest) -> Proven | None:
        """Return what a request proves, None where it needs to prove nothing; raises Unauthenticated."""
        if not self._keys or request.raw_path == CHALLENGE_PATH:
            return None
        given = request.headers.get(PROOF)
        if given is None:
            raise Unauthenticated(f"the internal listener is for workers with its secret; there is no {PROOF} header")
        asked, _, mac = given.rpartition(" ")
        asked = f"{self._challenge} {asked}"
        target = f"{request.method} {request.raw_path}"
        shown = mac.encode("utf-8", "replace")
        for key in self._keys:
            if hmac.compare_digest(shown, _mac(key, "request", asked, target, request.headers.items()).encode()):
                self._use(asked)
                return Proven(request.headers.get(BODY_DIGEST), _sealing(key, asked))
        raise Unauthenticated(
            f"{PROOF} does not prove a secret of this worker: internal_secrets of both must have one in common"
        )

    def _use(self, asked: str) -> None:
        """Record a number of a peer; raises Unauthenticated when it was used, or may have been."""
        _, name, text = asked.split(" ")
        number = int(text)
        highest, used = self._used.get(name, (0, 0))
        if number > highest:
            # A number far ahead leaves nothing of the window.
            used = (used << min(number - highest, _WINDOW) | 1) & _WINDOW_MASK
            highest = number
        else:
            bit = 1 << (highest - number) if highest - number < _WINDOW else 0
            if not bit or used & bit:
                raise Unauthenticated("this request was sent before, or is too old to tell")
            used |= bit
        if name not in self._used and len(self._used) >= _MAX_PEERS:
            self._used.clear()
            self._challenge = secrets.token_hex(16)
            raise Unauthenticated("this worker has a new challenge")
        self._used[name] = highest, used


def _sealing(key: bytes, asked: str) -> Callable[[web.Response], None]:
    def seal(response: web.Response) -> None:
        body = response.body if isinstance(response.body, bytes) else b""
        response.headers[PROOF] = _mac(key, "answer", asked, _answered(response.status, body), response.headers.items())

    return seal


def _introduction(key: bytes, nonce: str, challenge: str, host: HostInfo) -> str:
    who = f"{name_of(host)} {host.url}"
    return _mac(key, "challenge", f"{nonce} {challenge}", who, ())


def _answered(status: int, body: bytes) -> str:
    return f"{status} {sha256(body).hexdigest()}"


def _mac(key: bytes, what: str, asked: str, message: str, headers: Iterable[tuple[str, str]]) -> str:
    """Return the MAC over a message and those of its headers that mean something between workers.

    Keyed BLAKE2b, since an HMAC by OpenSSL takes four times as long for a message as short as this.
    """
    lines = [f"{meaning}:{value}" for name, value in headers if (meaning := _meaning(name))]
    lines.sort()
    text = "\n".join([what, asked, message, *lines])
    return blake2b(text.encode("utf-8", "surrogateescape"), key=key, digest_size=16).hexdigest()


@lru_cache(maxsize=1024)
def _meaning(name: str) -> str:
    """Return the name of a header in lower case, or nothing when it means nothing between workers."""
    lower = name.lower()
    covered = lower.startswith("tablehouse-") and lower != PROOF.lower()
    return lower if covered or lower == "retry-after" else ""
