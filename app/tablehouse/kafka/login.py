"""Checks at the start whether the brokers accept this worker's connection and login, and if not, why.

aiokafka's clients try one broker after another and raise a single error without the answers of each broker.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator, ScramAuthenticator, collect_hosts
from aiokafka.errors import (
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from tablehouse.errors import BrokersRefuse
from tablehouse.kafka.client import Connection
from tablehouse.kafka.metadata_requests import ReadOnlyMetadataRequest
from tablehouse.kafka.security import Security
from tablehouse.kafka.tokens import TokenUnavailable

#: Seconds that closing a connection may take.
_CLOSE_TIMEOUT_SECONDS = 1.0


class _TokenRefused(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """The broker does not accept the token."""


class _Impostor(KafkaError):  # type: ignore[misc]
    """The server did not prove that it knows the password, as SCRAM requires."""


class _StrictOAuth(OAuthAuthenticator):  # type: ignore[misc]
    """aiokafka's authenticator, which would treat any response to a token as success."""

    async def step(self, payload: bytes | None) -> Any:
        if payload:
            raise _TokenRefused(payload.decode("utf-8", "replace")[:300])
        return await super().step(payload)


class _NamingScram(ScramAuthenticator):  # type: ignore[misc]
    """aiokafka's authenticator, which would raise arbitrary exceptions if the response does not match the password."""

    async def step(self, payload: bytes | None) -> Any:
        try:
            return await super().step(payload)
        except (ValueError, LookupError, AttributeError) as error:
            raise _Impostor(repr(error)) from error


class _Login(AIOKafkaConnection):  # type: ignore[misc]
    def authenticator_oauth(self) -> _StrictOAuth:
        return _StrictOAuth(sasl_oauth_token_provider=self._sasl_oauth_token_provider)

    def authenticator_scram(self) -> _NamingScram:
        return _NamingScram(
            loop=self._loop,
            sasl_plain_password=self._sasl_plain_password,
            sasl_plain_username=self._sasl_plain_username,
            sasl_mechanism=self._sasl_mechanism,
        )


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a broker cannot be used; `final` if only an operator can fix it."""

    why: str
    final: bool


class _Broker(NamedTuple):
    """A broker and its advertised address."""

    node_id: int
    host: str
    port: int

    def __str__(self) -> str:
        return f"broker {self.node_id} advertises {self.host}:{self.port} (advertised.listeners)"


async def check_login(connection: Connection) -> None:
    """Return once a broker accepts this worker's login.

    Raises BrokersRefuse if every broker refuses it, and KafkaConnectionError if some do not answer; both errors give
    the reason for each broker.
    """
    answers = await _log_in_everywhere(connection)
    failures = [answer for answer in answers if isinstance(answer, _Failure)]
    if len(failures) < len(answers):
        return
    reasons = "; ".join(failure.why for failure in failures)
    if all(failure.final for failure in failures):
        raise BrokersRefuse(f"no broker accepts this worker over {connection.security}: {reasons}")
    raise KafkaConnectionError(reasons)


async def unreachable_brokers(connection: Connection) -> list[str]:
    """Return the brokers that cannot be reached at their advertised address, and why, one sentence each.

    Clients use these addresses after the first response of a bootstrap server. Empty if no bootstrap server answers.
    """
    answers = await _log_in_everywhere(connection)
    brokers = next((answer for answer in answers if not isinstance(answer, _Failure)), [])
    tried = await asyncio.gather(*(_log_in(connection, broker.host, broker.port) for broker in brokers))
    return [
        f"{broker}: {answer.why}" for broker, answer in zip(brokers, tried, strict=True) if isinstance(answer, _Failure)
    ]


async def _log_in_everywhere(connection: Connection) -> list[list[_Broker] | _Failure]:
    hosts = [(host, port) for host, port, _ in collect_hosts(connection.bootstrap_servers, randomize=False)]
    return await asyncio.gather(*(_log_in(connection, *host) for host in hosts))


async def _log_in(connection: Connection, host: str, port: int) -> list[_Broker] | _Failure:
    """Return the brokers that a broker knows, or why it cannot be used."""
    login = _Login(
        host,
        port,
        client_id=connection.client_id,
        request_timeout_ms=int(connection.request_timeout * 1000),
        **connection.security.arguments(),
    )
    made = True
    try:
        await login.connect()
        # Some refusals only show at the next request: of a certificate in TLS 1.3, or of a client without a login.
        answer = await login.send(ReadOnlyMetadataRequest([]))
    except (OSError, KafkaError) as error:
        made = isinstance(error, KafkaError)
        return _failure(connection, f"{host}:{port}", error)
    else:
        return [_Broker(node_id, at, on) for node_id, at, on, *_ in answer.brokers]
    finally:
        closed = login.close()
        if made:
            await asyncio.wait({closed}, timeout=_CLOSE_TIMEOUT_SECONDS)


def _failure(connection: Connection, broker: str, error: Exception) -> _Failure:
    security = connection.security
    # Requests of a closed connection fail with the reason as their cause.
    cause = error.__cause__ if isinstance(error, KafkaConnectionError) and error.__cause__ is not None else error
    if isinstance(cause, TokenUnavailable):
        return _Failure(str(cause.args[0]), final=cause.refused)
    if isinstance(cause, IncompatibleBrokerVersion):
        return _Failure(f"{broker} is too old: {cause.args[0]}", final=True)
    refusal = _tls_refusal(broker, cause) or _login_refusal(broker, cause, security)
    if refusal is not None:
        return _Failure(refusal, final=True)
    if isinstance(error, KafkaConnectionError | ConnectionResetError | ssl.SSLError):
        why = f"closes the connection: does this port use {security.protocol} (kafka_security_protocol)?"
    elif isinstance(error, TimeoutError):
        why = f"does not answer within {connection.request_timeout:.0f} s"
    else:
        why = f"cannot be reached: {str(error) or repr(error)}"
    return _Failure(f"{broker} {why}", final=False)


def _tls_refusal(broker: str, cause: BaseException) -> str | None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate of {broker} is not trusted: {cause.verify_message} (kafka_ca)"
    # The broker closed the connection during the handshake.
    if not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    _, alert, what = (cause.reason or "").rpartition("ALERT_")
    if alert:
        said = what.replace("_", " ").lower()
        return f"{broker} refuses this worker's certificate: {said} (kafka_certificate)"
    return f"{broker} does not use TLS on this port: {cause.reason or cause} (kafka_security_protocol)"


def _login_refusal(broker: str, cause: BaseException, security: Security) -> str | None:
    if isinstance(cause, _TokenRefused):
        return f"{broker} refuses the token of OAUTHBEARER: {cause.args[0]}"
    if isinstance(cause, _Impostor):
        return (
            f"{broker} does not prove that it knows the password of {security.username} ({security.mechanism}), so it "
            "may not be the intended broker (bootstrap_servers)"
        )
    if isinstance(cause, UnsupportedSaslMechanismError):
        return f"{broker} does not offer {security.mechanism} (kafka_sasl_mechanism)"
    if isinstance(cause, IllegalSaslStateError):
        return f"{broker} expects no login on this port (kafka_security_protocol)"
    if isinstance(cause, SaslAuthenticationFailed):
        return f"{broker} refuses the login by {security.mechanism}: {cause.args[0]}"
    return None
