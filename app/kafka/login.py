"""Tells, before anything relies on it, whether the brokers let this worker in, and if not, why.

aiokafka's clients try one broker after the other and raise a single error that no longer says what any of them
answered.
"""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator, ScramAuthenticator, collect_hosts
from aiokafka.errors import (
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from app.errors import BrokersRefuse
from app.kafka.client import Connection
from app.kafka.metadata_requests import LookingRequest
from app.kafka.security import Security
from app.kafka.tokens import TokenUnavailable

#: Seconds that a connection has to end.
_GOODBYE = 1.0


class _TokenRefused(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """The broker does not accept the token."""


class _Impostor(KafkaError):  # type: ignore[misc]
    """Who answers does not prove to know the password, as a broker does in SCRAM."""


class _StrictOAuth(OAuthAuthenticator):  # type: ignore[misc]
    """aiokafka's, which takes whatever a broker answers to a token for its consent."""

    async def step(self, payload: bytes | None) -> Any:
        if payload:
            raise _TokenRefused(payload.decode("utf-8", "replace")[:300])
        return await super().step(payload)


class _NamingScram(ScramAuthenticator):  # type: ignore[misc]
    """aiokafka's, which raises whatever it stumbles over when an answer is not the one to this password."""

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
    """What keeps this worker out of one broker; `final` when only a person can mend it."""

    why: str
    final: bool


async def check_login(connection: Connection) -> None:
    """Return when one broker lets this worker in.

    Raises BrokersRefuse when every one refuses, and KafkaConnectionError when some do not answer; both say what is
    wrong with each.
    """
    tried = await _try(connection, connection.bootstrap_servers.split(","))
    failures = [failure for failure in tried.values() if failure is not None]
    if len(failures) < len(tried):
        return
    reasons = "; ".join(failure.why for failure in failures)
    if all(failure.final for failure in failures):
        raise BrokersRefuse(f"no broker lets this worker in over {connection.security}: {reasons}")
    raise KafkaConnectionError(reasons)


async def why_shut_out(connection: Connection, brokers: Iterable[str]) -> dict[str, str]:
    """Return what keeps this worker out of each of these brokers, by `host:port`; those that let it in are missing."""
    tried = await _try(connection, brokers)
    return {broker: failure.why for broker, failure in tried.items() if failure is not None}


async def _try(connection: Connection, brokers: Iterable[str]) -> dict[str, _Failure | None]:
    hosts = {f"{host}:{port}": (host, port) for host, port, _ in collect_hosts(list(brokers), randomize=False)}
    tried = await asyncio.gather(*(_log_in(connection, *host) for host in hosts.values()))
    return dict(zip(hosts, tried, strict=True))


async def _log_in(connection: Connection, host: str, port: int) -> _Failure | None:
    login = _Login(
        host,
        port,
        client_id=connection.client_id,
        request_timeout_ms=int(connection.request_timeout * 1000),
        **connection.security.arguments(),
    )
    failure, made = None, True
    try:
        await login.connect()
        # Some refusals show only in what comes after: of a certificate in TLS 1.3, of a client without a login.
        await login.send(LookingRequest([]))
    except (OSError, KafkaError) as error:
        failure, made = _failure(connection, f"{host}:{port}", error), isinstance(error, KafkaError)
    finally:
        closed = login.close()
    if made:
        await asyncio.wait({closed}, timeout=_GOODBYE)
    return failure


def _failure(connection: Connection, broker: str, error: Exception) -> _Failure:
    security = connection.security
    # A connection that ends takes its requests with it, which have the reason as their cause.
    cause = error.__cause__ if isinstance(error, KafkaConnectionError) and error.__cause__ is not None else error
    if isinstance(cause, TokenUnavailable):
        return _Failure(str(cause.args[0]), final=cause.refused)
    if isinstance(cause, IncompatibleBrokerVersion):
        return _Failure(f"{broker} is too old: {cause.args[0]}", final=True)
    refusal = _tls_refusal(broker, cause) or _login_refusal(broker, cause, security)
    if refusal is not None:
        return _Failure(refusal, final=True)
    if isinstance(error, KafkaConnectionError | ConnectionResetError | ssl.SSLError):
        why = f"closes the connection: is {security.protocol} what it speaks on this port (kafka_security_protocol)?"
    elif isinstance(error, TimeoutError):
        why = f"does not answer within {connection.request_timeout:.0f} s"
    else:
        why = f"cannot be reached: {str(error) or repr(error)}"
    return _Failure(f"{broker} {why}", final=False)


def _tls_refusal(broker: str, cause: BaseException) -> str | None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate of {broker} is not trusted: {cause.verify_message} (kafka_ca)"
    # A broker that ends in the midst of it.
    if not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    _, alert, what = (cause.reason or "").rpartition("ALERT_")
    if alert:
        said = what.replace("_", " ").lower()
        return f"{broker} refuses this worker's certificate: {said} (kafka_certificate)"
    return f"{broker} does not speak TLS on this port: {cause.reason or cause} (kafka_security_protocol)"


def _login_refusal(broker: str, cause: BaseException, security: Security) -> str | None:
    if isinstance(cause, _TokenRefused):
        return f"{broker} refuses the token of OAUTHBEARER: {cause.args[0]}"
    if isinstance(cause, _Impostor):
        return (
            f"{broker} does not prove that it knows the password of {security.username} ({security.mechanism}), so it "
            "is not the broker that it should be (bootstrap_servers)"
        )
    if isinstance(cause, UnsupportedSaslMechanismError):
        return f"{broker} does not offer {security.mechanism} (kafka_sasl_mechanism)"
    if isinstance(cause, IllegalSaslStateError):
        return f"{broker} wants no login on this port (kafka_security_protocol)"
    if isinstance(cause, SaslAuthenticationFailed):
        return f"{broker} refuses the login by {security.mechanism}: {cause.args[0]}"
    return None
