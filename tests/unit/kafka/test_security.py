"""What settings of the way to Kafka are refused, and what becomes of those that are not."""

import os
import ssl
from pathlib import Path

import pytest

from tablehouse.config.load import load_settings
from tablehouse.errors import ConfigError
from tablehouse.kafka.client import Connection
from tablehouse.kafka.security import security_of
from tests.support.authority import Authority

REQUIRED = {"bootstrap_servers": "kafka:9092", "tables": "tables.yaml"}
LOGIN = {"kafka_sasl_username": "reader", "kafka_sasl_password": "correct-horse"}
PLAIN = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN", **LOGIN}
OAUTH = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "OAUTHBEARER",
    "kafka_oauth_token_url": "https://login.example.com/token",
    "kafka_oauth_client_id": "workers",
    "kafka_oauth_client_secret": "battery-staple",
}
TLS = {"kafka_security_protocol": "SSL"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TABLEHOUSE_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "authority")


def without(given: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in given.items() if name not in names}


def refused(given: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        security_of(load_settings(REQUIRED | given).kafka)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        (
            {"kafka_security_protocol": "SASL_SSL"},
            [
                (
                    "kafka_security_protocol is SASL_SSL, which needs kafka_sasl_mechanism: PLAIN, SCRAM-SHA-256, "
                    "SCRAM-SHA-512 or OAUTHBEARER"
                )
            ],
        ),
        (
            without(PLAIN, "kafka_security_protocol"),
            [
                (
                    "kafka_sasl_mechanism is PLAIN, which needs kafka_security_protocol: SASL_SSL or SASL_PLAINTEXT; "
                    "it is PLAINTEXT"
                )
            ],
        ),
        (
            LOGIN,
            [
                f"{name} needs kafka_sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; it is not given"
                for name in LOGIN
            ],
        ),
        (
            without(PLAIN, "kafka_sasl_password"),
            ["kafka_sasl_password is missing, which kafka_sasl_mechanism=PLAIN needs"],
        ),
        (
            OAUTH | LOGIN,
            [
                f"{name} needs kafka_sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; it is OAUTHBEARER"
                for name in LOGIN
            ],
        ),
        (
            without(OAUTH, "kafka_oauth_client_secret"),
            ["kafka_oauth_client_secret is missing, which kafka_sasl_mechanism=OAUTHBEARER needs"],
        ),
        (
            PLAIN | {"kafka_oauth_scope": "kafka"},
            ["kafka_oauth_scope needs kafka_sasl_mechanism: OAUTHBEARER; it is PLAIN"],
        ),
        (
            {"kafka_ca": "ca.pem"},
            ["kafka_ca needs kafka_security_protocol: SSL or SASL_SSL; it is PLAINTEXT"],
        ),
        (TLS | {"kafka_certificate": "c.pem"}, ["kafka_certificate needs kafka_key, which is missing"]),
        (TLS | {"kafka_key": "k.pem"}, ["kafka_key needs kafka_certificate, which is missing"]),
        (
            TLS | {"kafka_key_password": "p"},
            ["kafka_key_password needs kafka_key, which is missing"],
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_both_names(
    given: dict[str, str], problems: list[str]
) -> None:
    assert refused(given) == [f"settings: {problem}" for problem in problems]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("kafka_security_protocol", "TLS", "must be 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
        ("kafka_sasl_mechanism", "GSSAPI", "must be 'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512' or 'OAUTHBEARER'"),
        ("kafka_sasl_username", "", "must be 1 to 1000 printable ASCII characters"),
        ("kafka_oauth_token_url", "login.example.com", "must be the https:// or http:// URL"),
        ("kafka_oauth_token_url", "https://me:secret@login.example.com", "must be the https:// or http:// URL"),
        ("kafka_ca", "", "must be a path"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(name: str, value: str, right: str) -> None:
    [problem] = refused({name: value})
    assert problem.startswith(f"flag: --{name.replace('_', '-')}: {right}")


@pytest.mark.parametrize("name", ["kafka_sasl_password", "kafka_oauth_client_secret", "kafka_key_password"])
def test_a_secret_that_cannot_be_used_is_never_repeated(name: str) -> None:
    [problem] = refused({name: "hunter\t2"})
    assert "must be a secret of 1 to 10000 printable characters" in problem
    assert problem.endswith("it is not shown here")
    assert "hunter" not in problem


def test_secrets_show_in_nothing_that_is_printed(authority: Authority) -> None:
    certificate, key = authority.certificate("shown.example.com", "paper-clip")
    tls = {
        "kafka_certificate": str(certificate),
        "kafka_key": str(key),
        "kafka_key_password": "paper-clip",
    }
    for given in (PLAIN, OAUTH):
        settings = load_settings(REQUIRED | given | tls)
        security = security_of(settings.kafka)
        shown = (
            f"{settings!r} {settings.model_dump_json()} {security!r} {security} {Connection('k:1', 'c', 1, security)}"
        )
        for secret in ("correct-horse", "battery-staple", "paper-clip"):
            assert secret not in shown


def test_a_password_with_a_line_break_at_its_end_as_files_have_it_is_the_password() -> None:
    settings = load_settings(REQUIRED | PLAIN | {"kafka_sasl_password": "correct horse\n"})
    password = security_of(settings.kafka).password
    assert password is not None
    assert password.get_secret_value() == "correct horse"


def test_without_settings_brokers_are_spoken_to_in_the_clear() -> None:
    assert security_of(load_settings(REQUIRED).kafka).arguments() == {
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }


def test_certificates_and_host_names_are_always_checked(authority: Authority) -> None:
    for given in (TLS, TLS | {"kafka_ca": str(authority.ca)}):
        tls = security_of(load_settings(REQUIRED | given).kafka).tls
        assert tls is not None
        assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert tls.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_file_that_is_not_there_or_not_pem_is_named_with_its_setting(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.certificate("a.example.com")
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing", "utf-8")
    assert refused(TLS | {"kafka_ca": "/nowhere/ca.pem"}) == [
        "kafka_ca: /nowhere/ca.pem cannot be read (No such file or directory)"
    ]
    assert refused(TLS | {"kafka_ca": str(empty)}) == [f"kafka_ca: {empty} holds no certificate in PEM format"]
    pair = {"kafka_certificate": str(certificate), "kafka_key": str(key)}
    assert refused(TLS | pair | {"kafka_key": str(tmp_path)}) == [
        f"kafka_key: {tmp_path} cannot be read (Is a directory)"
    ]
    for name in pair:
        [problem] = refused(TLS | pair | {name: str(empty)})
        assert problem.startswith("kafka_certificate and kafka_key: ")
        assert str(empty) in problem


def test_a_key_that_does_not_fit_or_does_not_open_is_refused(authority: Authority) -> None:
    certificate, key = authority.certificate("b.example.com", "paper-clip")
    _, other = authority.certificate("c.example.com")
    pair = TLS | {"kafka_certificate": str(certificate), "kafka_key": str(key)}
    assert refused(pair) == [f"kafka_key: {key} is encrypted, and needs kafka_key_password"]
    [problem] = refused(pair | {"kafka_key_password": "stapler"})
    assert problem == f"kafka_key: {key} is encrypted, and is not opened by kafka_key_password"
    [problem] = refused(pair | {"kafka_key": str(other)})
    assert problem.startswith(f"kafka_key: {other} is not the key of the certificate in {certificate}")
