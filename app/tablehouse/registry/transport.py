"""One request to a registry with one or several URLs, with a deadline."""

import asyncio
import errno
import os
import socket
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
import structlog
from prometheus_client import Counter

from tablehouse.registry.answers import NoRegistry, Refusal, Unavailable, not_found, parse

log = structlog.get_logger(__name__)

#: Seconds within which a URL must accept a connection, and answer in total.
CONNECT_TIMEOUT = 3.0
ANSWER_TIMEOUT = 10.0

_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"


@dataclass(frozen=True, slots=True)
class Access:
    """The URLs and credentials of a registry; `urls` are all of one registry, without a slash at the end."""

    urls: tuple[str, ...]
    tls: ssl.SSLContext
    auth: httpx.Auth | None = field(default=None, repr=False)


class Bearer(httpx.Auth):
    """Sends a bearer token with each request."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Any:
        """See httpx.Auth."""
        request.headers["Authorization"] = self._header
        yield request


class Transport:
    """Tries the URLs of a registry in turn, beginning with the last that answered; counts requests by their outcome."""

    def __init__(self, access: Access, requests: Counter) -> None:
        self._urls = list(access.urls)
        self._requests = requests
        #: The error of each URL whose last request failed.
        self._failing: dict[str, str] = {}
        #: What is wrong with the registry as a whole; None if one of the URLs answered the last request.
        self.trouble: str | None = None
        # Connects directly, as to the brokers, and ignores proxies set in the environment.
        self._client = httpx.AsyncClient(
            verify=access.tls,
            auth=access.auth,
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
            headers={"Accept": _ACCEPT},
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, path: str, kind: Any) -> Any:
        """Return a response as a value of a type.

        Raises Refusal if every URL that answers says that it does not exist, and Unavailable, or NoRegistry, if none of
        them answers.
        """
        failures: dict[str, Unavailable] = {}
        refusal: Refusal | None = None
        for url in list(self._urls):
            try:
                answer = await self._ask(url, path, kind)
            except Unavailable as error:
                failures[url] = error
                self._failed(url, str(error))
            except Refusal as error:
                # Another URL may have it already: registries replicate each other.
                refusal = error
                self._answered(url)
            else:
                self._answered(url)
                self._urls.remove(url)
                self._urls.insert(0, url)
                self.trouble = None
                return answer
        if refusal is not None:
            self.trouble = None
            raise refusal
        self.trouble = "; ".join(f"{url}: {failures[url]}" for url in sorted(failures))
        failed = NoRegistry if all(isinstance(error, NoRegistry) for error in failures.values()) else Unavailable
        raise failed(self.trouble)

    async def _ask(self, url: str, path: str, kind: Any) -> Any:
        outcome = "unavailable"
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await self._client.get(url + path)
            if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                outcome = "refused"
            found = _judge(answer, kind)
            outcome = "found"
        except Refusal:
            outcome = "not_found"
            raise
        except (httpx.HTTPError, TimeoutError) as error:
            raise Unavailable(_words(error)) from error
        finally:
            self._requests.labels(outcome).inc()
        return found

    def _failed(self, url: str, reason: str) -> None:
        if self._failing.get(url) != reason:
            self._failing[url] = reason
            log.warning("the schema registry does not answer", url=url, reason=reason)

    def _answered(self, url: str) -> None:
        if self._failing.pop(url, None) is not None:
            log.info("the schema registry answers again", url=url)


def _judge(answer: httpx.Response, kind: Any) -> Any:
    match answer.status_code:
        case HTTPStatus.OK:
            return parse(answer.content, kind)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            raise Unavailable(
                f"{_status(answer)}: check schema_registry_user and schema_registry_password, or schema_registry_token"
            )
        case HTTPStatus.NOT_FOUND if (words := not_found(answer.content)) is not None:
            raise Refusal(words)
        case status if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS:
            raise NoRegistry(f"{_status(answer)}, which is not a response of a schema registry")
    raise Unavailable(_status(answer))


def _status(answer: httpx.Response) -> str:
    location = answer.headers.get("Location")
    to = f" to {location}" if location else ""
    return f"{answer.status_code} {answer.reason_phrase}".strip() + to


def _words(error: Exception) -> str:
    """Return the operating system's message, which is at the end of the chain of exceptions."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    cause: BaseException | None = error
    words = str(error) or type(error).__name__
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
            continue
        if isinstance(cause, OSError) and cause.strerror:
            # asyncio adds text to the message.
            of_the_system = not isinstance(cause, ssl.SSLError | socket.gaierror) and cause.errno in errno.errorcode
            words = os.strerror(cause.errno) if of_the_system and cause.errno else cause.strerror
        cause = cause.__cause__ or cause.__context__
    return words[:1].lower() + words[1:]
