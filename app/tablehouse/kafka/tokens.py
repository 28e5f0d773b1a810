"""OAUTHBEARER tokens from the client credentials grant (RFC 6749, 4.4), shared by all clients of a worker."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from urllib.parse import quote

import httpx
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_json

#: Seconds that the token endpoint may take to answer, including the connection.
ENDPOINT_TIMEOUT = 5.0

#: Seconds that a failure is cached: connections are retried much more often.
_FAILURE_CACHE_SECONDS = 1.0

#: A token is replaced after this share of its lifetime, and used until this many seconds before its end.
_FRESH_SHARE, _LAST_SECONDS = 0.8, 2.0

#: Lifetime of a token in seconds if the endpoint does not state it.
_DEFAULT_LIFETIME_SECONDS = 300.0

_MAX_ANSWER_CHARACTERS = 300
_OK, _CLIENT_ERROR, _SERVER_ERROR = 200, 400, 500
_TOO_MANY_REQUESTS = 429


class TokenUnavailable(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """The endpoint returned no token; `refused` if it denied this client one and would do so again.

    A KafkaError, so that the connection counts as failed and is retried.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """The token endpoint and the client's credentials."""

    url: str
    client_id: str
    client_secret: SecretStr
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    fresh_until: float
    usable_until: float


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is not typed
    """Implements aiokafka's AbstractTokenProvider. Times are those of `clock`, in seconds."""

    def __init__(self, endpoint: TokenEndpoint, clock: Callable[[], float] = monotonic) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._tls = ssl.create_default_context()
        self._token: _Token | None = None
        self._failure: tuple[TokenUnavailable, float] | None = None
        self._asking: asyncio.Task[_Token] | None = None

    async def token(self) -> str:
        """Return a token that has not expired, within ENDPOINT_TIMEOUT; raises TokenUnavailable.

        Concurrent callers share one request to the endpoint. A token that is due to be replaced but cannot be is used
        until it expires.
        """
        now, token = self._clock(), self._token
        if token is not None and now < token.fresh_until:
            return token.text
        try:
            return (await self._request_token(now)).text
        except TokenUnavailable:
            if token is not None and self._clock() < token.usable_until:
                return token.text
            raise

    async def _request_token(self, now: float) -> _Token:
        if self._asking is None:
            if self._failure is not None and now < self._failure[1]:
                raise self._failure[0]
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._on_answer)
        return await asyncio.shield(self._asking)

    def _on_answer(self, asking: asyncio.Task[_Token]) -> None:
        self._asking = None
        error = None if asking.cancelled() else asking.exception()
        if isinstance(error, TokenUnavailable):
            self._failure = error, self._clock() + _FAILURE_CACHE_SECONDS

    async def _ask(self) -> _Token:
        endpoint, asked_at = self._endpoint, self._clock()
        form = {"grant_type": "client_credentials"} | ({} if endpoint.scope is None else {"scope": endpoint.scope})
        # As in RFC 6749 (2.3.1), so that both may contain any character.
        login = quote(endpoint.client_id, safe=""), quote(endpoint.client_secret.get_secret_value(), safe="")
        try:
            async with (
                asyncio.timeout(ENDPOINT_TIMEOUT),
                httpx.AsyncClient(verify=self._tls, timeout=ENDPOINT_TIMEOUT) as client,
            ):
                answer = await client.post(
                    endpoint.url, data=form, auth=httpx.BasicAuth(*login), headers={"Accept": "application/json"}
                )
        except (TimeoutError, httpx.TimeoutException):
            raise TokenUnavailable(f"{endpoint.url} returned no token within {ENDPOINT_TIMEOUT:.0f} s") from None
        except httpx.HTTPError as error:
            raise TokenUnavailable(
                f"{endpoint.url} cannot be reached for a token: {str(error) or repr(error)}"
            ) from error
        self._token = self._token_of(answer, asked_at)
        return self._token

    def _token_of(self, answer: httpx.Response, asked_at: float) -> _Token:
        url, status = self._endpoint.url, answer.status_code
        if status != _OK:
            refused = _CLIENT_ERROR <= status < _SERVER_ERROR and status != _TOO_MANY_REQUESTS
            said = f"{status} {self._one_line(answer.text)}".rstrip()
            raise TokenUnavailable(
                f"{url} returned no token for client {self._endpoint.client_id}: {said}",
                refused=refused,
            )
        try:
            document = decode_json(answer.content)
        except DecodeError:
            document = None
        text = document.get("access_token") if isinstance(document, Mapping) else None
        if not isinstance(document, Mapping) or not isinstance(text, str) or not text.isascii() or not text:
            raise TokenUnavailable(f"{url} answered 200 without an access_token, so it is not a token endpoint")
        life = document.get("expires_in", _DEFAULT_LIFETIME_SECONDS)
        try:
            life = float(life)
        except (TypeError, ValueError):
            raise TokenUnavailable(f"{url} answered with an expires_in that is not a number of seconds") from None
        usable_until = asked_at + life - _LAST_SECONDS
        return _Token(text, min(asked_at + life * _FRESH_SHARE, usable_until), usable_until)

    def _one_line(self, text: str) -> str:
        """Return an endpoint's response on one line, with the secret masked in case it echoes it."""
        hidden = text.replace(self._endpoint.client_secret.get_secret_value(), "***")
        return " ".join(hidden.split())[:_MAX_ANSWER_CHARACTERS]
