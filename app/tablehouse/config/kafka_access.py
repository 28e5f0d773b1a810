"""The settings of the connection to the brokers: encryption and login, and which of them belong together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

_PROTOCOL, _MECHANISM = "kafka_security_protocol", "kafka_sasl_mechanism"
_ENCRYPTED = ("SSL", "SASL_SSL")
_WITH_LOGIN = ("SASL_PLAINTEXT", "SASL_SSL")

_BY_PASSWORD = ("kafka_sasl_username", "kafka_sasl_password")
_BY_TOKEN = ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
_TLS = ("kafka_ca", "kafka_certificate", "kafka_key", "kafka_key_password")
#: Settings that require another one.
_PAIRS = (
    ("kafka_certificate", "kafka_key"),
    ("kafka_key", "kafka_certificate"),
    ("kafka_key_password", "kafka_key"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaAccess:
    """How this worker connects to the brokers and logs in; each field is the setting kafka_<field>."""

    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    oauth_token_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: SecretStr | None = None
    oauth_scope: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: SecretStr | None = None


def contradictions(given: Mapping[str, object]) -> Iterator[str]:
    """Yield the contradictions between settings, one sentence each; a setting that is not given is None.

    Sentences contain no values except the protocol and the mechanism.
    """
    yield from _of_login(given)
    yield from _of_tls(given)


def _of_login(given: Mapping[str, object]) -> Iterator[str]:
    protocol, mechanism = given[_PROTOCOL], given[_MECHANISM]
    if protocol in _WITH_LOGIN and mechanism is None:
        yield f"{_PROTOCOL} is {protocol}, which needs {_MECHANISM}: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    if mechanism is not None and protocol not in _WITH_LOGIN:
        yield f"{_MECHANISM} is {mechanism}, which needs {_PROTOCOL}: SASL_SSL or SASL_PLAINTEXT; it is {protocol}"
    by_token = mechanism == "OAUTHBEARER"
    needed = () if mechanism is None else _BY_TOKEN if by_token else _BY_PASSWORD
    yield from (f"{name} is missing, which {_MECHANISM}={mechanism} needs" for name in needed if given[name] is None)
    unused = {
        **({} if needed == _BY_PASSWORD else dict.fromkeys(_BY_PASSWORD, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")),
        **({} if by_token else dict.fromkeys((*_BY_TOKEN, "kafka_oauth_scope"), "OAUTHBEARER")),
    }
    for name, right in unused.items():
        if given[name] is not None:
            yield f"{name} needs {_MECHANISM}: {right}; it is {mechanism or 'not given'}"


def _of_tls(given: Mapping[str, object]) -> Iterator[str]:
    for name in _TLS:
        if given[name] is not None and given[_PROTOCOL] not in _ENCRYPTED:
            yield f"{name} needs {_PROTOCOL}: SSL or SASL_SSL; it is {given[_PROTOCOL]}"
    for name, other in _PAIRS:
        if given[name] is not None and given[other] is None:
            yield f"{name} needs {other}, which is missing"
