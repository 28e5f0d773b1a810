"""Broker connection security: plaintext or TLS, and login."""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from pydantic import SecretStr

from tablehouse.config.kafka_access import KafkaAccess
from tablehouse.errors import ConfigError
from tablehouse.kafka.tokens import ClientCredentials, TokenEndpoint


@dataclass(frozen=True, slots=True)
class Security:
    """Shared by every client of a worker: the protocol, the login, and the TLS context of protocols with TLS."""

    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    tokens: AbstractTokenProvider | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for aiokafka's clients and connections."""
        arguments: dict[str, Any] = {"security_protocol": self.protocol, "ssl_context": self.tls}
        if self.mechanism is not None:
            arguments |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": None if self.password is None else self.password.get_secret_value(),
                "sasl_oauth_token_provider": self.tokens,
            }
        return arguments

    def __str__(self) -> str:
        if self.mechanism is None:
            return self.protocol
        return f"{self.protocol} with {self.mechanism}" + (f" as {self.username}" if self.username else "")


PLAINTEXT = Security()


def security_of(access: KafkaAccess) -> Security:
    """Return the security configured by the settings; raises ConfigError for an unusable file."""
    tokens = None
    if access.oauth_token_url and access.oauth_client_id and access.oauth_client_secret:
        endpoint = TokenEndpoint(
            access.oauth_token_url, access.oauth_client_id, access.oauth_client_secret, access.oauth_scope
        )
        tokens = ClientCredentials(endpoint)
    return Security(
        access.security_protocol,
        access.sasl_mechanism,
        access.sasl_username,
        access.sasl_password,
        tokens,
        _tls(access) if access.security_protocol in {"SSL", "SASL_SSL"} else None,
    )


def _tls(access: KafkaAccess) -> ssl.SSLContext:
    """Return a context that checks certificates and host names, TLS 1.2 or newer."""
    ca, certificate, key = access.ca, access.certificate, access.key
    for name, path in (("kafka_ca", ca), ("kafka_certificate", certificate), ("kafka_key", key)):
        if path is not None:
            _check_readable(name, path)
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise ConfigError(f"kafka_ca: {ca} holds no certificate in PEM format") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None and key is not None:
        _load_pair(context, certificate, key, access.key_password)
    return context


def _check_readable(name: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read ({os.strerror(error.errno or 0)})") from None


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path, password: SecretStr | None) -> None:
    asked = False

    def give() -> str:
        # Without a password, OpenSSL would prompt for one on the terminal.
        nonlocal asked
        asked = True
        return "" if password is None else password.get_secret_value()

    try:
        context.load_cert_chain(certificate, key, give)
    except ssl.SSLError as error:
        if asked:
            right = "needs kafka_key_password" if password is None else "is not opened by kafka_key_password"
            raise ConfigError(f"kafka_key: {key} is encrypted, and {right}") from None
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"kafka_key: {key} is not the key of the certificate in {certificate} (kafka_certificate)"
            ) from None
        raise ConfigError(
            f"kafka_certificate and kafka_key: {certificate} must hold a certificate and {key} its private "
            "key, both in PEM format"
        ) from None
