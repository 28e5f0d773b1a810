"""Logins and certificates at a real broker that has a port for each way in."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from tablehouse.config.settings import Settings
from tablehouse.errors import BrokersRefuse
from tablehouse.kafka.client import Connection
from tablehouse.kafka.login import check_login
from tablehouse.kafka.security import security_of
from tablehouse.testing import processes
from tablehouse.testing.kafka import EmbeddedKafka, Listener
from tests.support.authority import Authority
from tests.support.http_workers import ask, send
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.tokens import CLIENT, SECRET, TokenServer
from tests.support.worker import MakeWorker, table, tables

USER, PASSWORD, WRONG = "reader", "correct horse", "hunter2 is wrong"
PASSWORD_OF_KEY = "battery staple"  # noqa: S105 - of a key that lives as long as the test

_SASL = "org.apache.kafka.common.security"


class Secured(NamedTuple):
    """A broker, its ways in by name, and who signs certificates for it."""

    broker: EmbeddedKafka
    listeners: dict[str, Listener]
    authority: Authority
    certificate: tuple[Path, Path]

    def settings(self, way: str, **others: str) -> dict[str, str]:
        """Return the settings that a worker needs for a way in, as the texts that people give."""
        ca, (certificate, key) = str(self.authority.ca), self.certificate
        login = {"kafka_sasl_username": USER, "kafka_sasl_password": PASSWORD}
        oauth = {"kafka_oauth_client_id": CLIENT, "kafka_oauth_client_secret": SECRET}
        of_way = {
            "plain": {"kafka_sasl_mechanism": "PLAIN", **login},
            "scram": {"kafka_sasl_mechanism": "SCRAM-SHA-512", **login, "kafka_ca": ca},
            "oauth": {"kafka_sasl_mechanism": "OAUTHBEARER", **oauth},
            "tls": {"kafka_ca": ca},
            "mtls": {
                "kafka_ca": ca,
                "kafka_certificate": str(certificate),
                "kafka_key": str(key),
                "kafka_key_password": PASSWORD_OF_KEY,
            },
        }[way]
        return {
            "bootstrap_servers": self.listeners[way].bootstrap_servers,
            "kafka_security_protocol": self.listeners[way].protocol,
            **of_way,
            **others,
        }

    def connection(self, way: str, **others: str) -> Connection:
        """Return the connection that a worker with these settings has."""
        return connection_of(self.settings(way, **others))


def connection_of(given: dict[str, str]) -> Connection:
    settings = Settings(**{"tables": "tables.yaml", **given})  # type: ignore[arg-type]
    return Connection(settings.bootstrap_servers, "test", security=security_of(settings.kafka))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder / "authority")
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.keystore("127.0.0.1")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca),
    }
    foreign_name = {**tls, "ssl.keystore.location": str(authority.keystore("kafka.example.com"))}
    listeners = [
        Listener(
            "plain",
            "SASL_PLAINTEXT",
            {
                "sasl.enabled.mechanisms": "PLAIN",
                "plain.sasl.jaas.config": f'{_SASL}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            },
        ),
        Listener(
            "scram",
            "SASL_SSL",
            {
                **tls,
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "scram-sha-512.sasl.jaas.config": f"{_SASL}.scram.ScramLoginModule required;",
            },
        ),
        Listener(
            "oauth",
            "SASL_PLAINTEXT",
            {
                "sasl.enabled.mechanisms": "OAUTHBEARER",
                # Connections end with their tokens.
                "oauthbearer.connections.max.reauth.ms": "3600000",
                "oauthbearer.sasl.jaas.config": (
                    f'{_SASL}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
                ),
            },
        ),
        Listener("tls", "SSL", tls),
        Listener("mtls", "SSL", {**tls, "ssl.client.auth": "required"}),
        Listener("foreign", "SSL", foreign_name),
    ]
    with EmbeddedKafka(folder / "kafka", listeners=listeners, scram={USER: PASSWORD}) as broker:
        yield Secured(
            broker,
            {listener.name: listener for listener in listeners},
            authority,
            authority.certificate("worker.example.com", PASSWORD_OF_KEY),
        )


async def refusal(connection: Connection) -> str:
    with pytest.raises(BrokersRefuse) as caught:
        await check_login(connection)
    return str(caught.value)


@pytest.mark.parametrize("way", ["plain", "scram", "tls", "mtls"])
async def test_the_right_login_and_certificate_are_let_in(secured: Secured, way: str) -> None:
    await check_login(secured.connection(way))


async def test_a_token_is_let_in_and_asked_for_with_what_was_set(secured: Secured) -> None:
    async with TokenServer() as tokens:
        await check_login(secured.connection("oauth", kafka_oauth_token_url=tokens.url, kafka_oauth_scope="kafka read"))
    assert tokens.asked == [{"login": CLIENT, "grant_type": "client_credentials", "scope": "kafka read"}]


@pytest.mark.parametrize(("way", "mechanism"), [("plain", "PLAIN"), ("scram", "SCRAM-SHA-512")])
async def test_a_wrong_password_is_refused_by_host_and_mechanism(secured: Secured, way: str, mechanism: str) -> None:
    said = await refusal(secured.connection(way, kafka_sasl_password=WRONG))
    assert f"{secured.listeners[way].bootstrap_servers} refuses the login by {mechanism}: Authentication failed" in said
    assert f"with {mechanism} as {USER}" in said
    assert WRONG not in said


async def test_a_mechanism_that_the_broker_does_not_offer_is_named(secured: Secured) -> None:
    said = await refusal(secured.connection("plain", kafka_sasl_mechanism="SCRAM-SHA-256"))
    assert "does not offer SCRAM-SHA-256 (kafka_sasl_mechanism)" in said


async def test_a_broker_of_another_authority_is_not_trusted(secured: Secured, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    said = await refusal(secured.connection("scram", kafka_ca=str(other.ca)))
    assert f"the certificate of {secured.listeners['scram'].bootstrap_servers} is not trusted: " in said
    assert "(kafka_ca)" in said


async def test_a_certificate_for_another_host_is_not_trusted(secured: Secured) -> None:
    said = await refusal(secured.connection("tls", bootstrap_servers=secured.listeners["foreign"].bootstrap_servers))
    assert "not valid for '127.0.0.1'" in said


async def test_a_worker_without_a_certificate_or_with_a_foreign_one_is_refused(
    secured: Secured, tmp_path: Path
) -> None:
    at = secured.listeners["mtls"].bootstrap_servers
    said = await refusal(secured.connection("tls", bootstrap_servers=at))
    assert f"{at} refuses this worker's certificate: " in said
    certificate, key = Authority(tmp_path / "other").certificate("worker.example.com")
    foreign = {"kafka_certificate": str(certificate), "kafka_key": str(key)}
    said = await refusal(secured.connection("mtls", **foreign))
    assert f"{at} refuses this worker's certificate: " in said


async def test_tls_to_a_port_without_it_asks_after_the_protocol(secured: Secured) -> None:
    at = secured.broker.bootstrap_servers
    with pytest.raises(KafkaConnectionError, match=f"{at} closes the connection: does this port use SSL"):
        await check_login(secured.connection("tls", bootstrap_servers=at))


async def test_no_login_at_a_port_that_wants_one_asks_after_the_protocol(secured: Secured) -> None:
    at = secured.listeners["plain"].bootstrap_servers
    with pytest.raises(KafkaConnectionError, match="does this port use PLAINTEXT"):
        await check_login(connection_of({"bootstrap_servers": at}))


async def test_a_broker_that_is_away_may_let_in_later_so_nothing_is_final(secured: Secured) -> None:
    refusing, away = secured.listeners["plain"].bootstrap_servers, f"127.0.0.1:{processes.free_port()}"
    with pytest.raises(KafkaConnectionError) as caught:
        await check_login(
            secured.connection("plain", bootstrap_servers=f"{refusing},{away}", kafka_sasl_password=WRONG)
        )
    assert f"{refusing} refuses the login" in str(caught.value)
    assert f"{away} cannot be reached" in str(caught.value)


async def test_one_broker_that_lets_in_is_enough(secured: Secured) -> None:
    away = f"127.0.0.1:{processes.free_port()}"
    here = secured.listeners["plain"].bootstrap_servers
    await check_login(secured.connection("plain", bootstrap_servers=f"{away},{here}"))


async def test_a_client_that_gets_no_token_is_refused_by_the_endpoint_s_words(secured: Secured) -> None:
    async with TokenServer() as tokens:
        given = {"kafka_oauth_token_url": tokens.url, "kafka_oauth_client_secret": "wrong secret"}
        said = await refusal(secured.connection("oauth", **given))
        assert f'{tokens.url} returned no token for client {CLIENT}: 401 {{"error": "invalid_client"}}' in said
        assert "wrong secret" not in said
        tokens.instead = 503, "come back later"
        with pytest.raises(KafkaConnectionError, match=f"no token for client {CLIENT}: 503 come back later"):
            await check_login(secured.connection("oauth", kafka_oauth_token_url=tokens.url))


async def test_a_token_that_the_broker_does_not_take_is_refused(secured: Secured) -> None:
    async with TokenServer() as tokens:
        tokens.instead = 200, '{"access_token": "a.b.c"}'
        said = await refusal(secured.connection("oauth", kafka_oauth_token_url=tokens.url))
    at = secured.listeners["oauth"].bootstrap_servers
    assert f"{at} refuses the token of OAUTHBEARER" in said


async def test_connections_that_end_with_their_tokens_come_back_with_new_ones(secured: Secured) -> None:
    topic = unique("planes")
    await create_topic(secured.broker.bootstrap_servers, topic, 1)
    async with TokenServer(life=4) as tokens:
        connection = secured.connection("oauth", kafka_oauth_token_url=tokens.url)
        producer = AIOKafkaProducer(**connection.arguments(), acks="all")
        await producer.start()
        try:

            async def renewed() -> bool:
                await producer.send_and_wait(topic, b"x", partition=0)
                return len(tokens.asked) >= 3

            await until(renewed, "the third token", 60)
        finally:
            await producer.stop()


@pytest.mark.parametrize("way", ["scram", "mtls", "plain"])
async def test_a_worker_reads_and_answers_over_a_secured_port(
    secured: Secured, way: str, make_worker: MakeWorker
) -> None:
    topic = unique("planes")
    await create_topic(secured.broker.bootstrap_servers, topic, 2)
    await produce(secured.broker.bootstrap_servers, topic, [(b"N14228", b'{"seats":149}', None)])
    settings = secured.settings(way)
    bootstrap = settings.pop("bootstrap_servers")
    worker = make_worker(bootstrap, tables(table("planes", topic)), group=unique("secured"), **settings)
    worker.start()
    await worker.wait_ready()
    answer = await worker.get("/tables/planes/N14228")
    assert (answer.status, answer.body) == (200, b'{"seats":149}')
    assert PASSWORD not in worker.log_text()


async def test_a_login_that_is_refused_later_is_an_outage_that_is_named_and_ends(
    secured: Secured, make_worker: MakeWorker
) -> None:
    topic = unique("planes")
    await create_topic(secured.broker.bootstrap_servers, topic, 1)
    async with TokenServer(life=6) as tokens:
        settings = secured.settings("oauth", kafka_oauth_token_url=tokens.url)
        bootstrap = settings.pop("bootstrap_servers")
        worker = make_worker(bootstrap, tables(table("planes", topic)), group=unique("secured"), **settings)
        worker.start()
        await worker.wait_ready()

        tokens.instead = 401, "unknown client"

        async def explained() -> bool:
            _, seen = await worker.document("/readyz?verbose")
            return any(
                "returned no token for client workers: 401 unknown client" in reason for reason in seen["reasons"]
            )

        await until(explained, "the refusal among the reasons", 60)

        await produce(secured.broker.bootstrap_servers, topic, [(b"N14228", b'{"seats":149}', None)])
        tokens.instead = None

        async def answered() -> bool:
            _, seen = await worker.document("/readyz?verbose")
            return (await worker.get("/tables/planes/N14228")).status == 200 and seen["reasons"] == []

        await until(answered, "the row of the outage, and no reason left", 60)


async def test_a_worker_with_a_wrong_password_ends_as_one_that_cannot_start(
    secured: Secured, make_worker: MakeWorker
) -> None:
    settings = secured.settings("scram", kafka_sasl_password=WRONG)
    bootstrap = settings.pop("bootstrap_servers")
    worker = make_worker(bootstrap, tables(table("planes", "planes")), group=unique("secured"), **settings)
    worker.start()
    assert await worker.wait_exit() == 2
    assert f"{bootstrap} refuses the login by SCRAM-SHA-512" in worker.log_text()
    assert WRONG not in worker.log_text()


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_worker_that_logs_all_it_can_logs_no_password_no_secret_no_key_and_no_value(
    secured: Secured, make_worker: MakeWorker, log_format: str
) -> None:
    key, value, bad, put, internal = (
        "SENTINEL-key",
        "SENTINEL-value",
        "SENTINEL-bad",
        "SENTINEL-put",
        "SENTINEL-secret-0",
    )
    topic, bootstrap = unique("planes"), secured.broker.bootstrap_servers
    await create_topic(bootstrap, topic, 1)
    row = b'{"is":"%s"}' % value.encode()
    records = [(key.encode(), row, 0), (key.encode(), b'{"is":' + bad.encode(), 0), (None, b'"SENTINEL-no-key"', 0)]
    await produce(bootstrap, topic, records)
    settings = secured.settings("plain", log_level="debug", log_format=log_format, internal_secrets=internal)
    servers = settings.pop("bootstrap_servers")
    definition = tables(table("planes", topic) + "    writable: true\n")
    worker = make_worker(servers, definition, group=unique("secured"), **settings)
    worker.start()
    await worker.wait_active()
    assert (await worker.get(f"/tables/planes/{key}")).body == row
    body = b'{"is":"%s"}' % put.encode()
    for method, content in (("PUT", body), ("PUT", b'{"is":' + bad.encode()), ("DELETE", b"")):
        head = f"{method} /tables/planes/{key} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        answer = await send(worker.url, f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        assert answer.status == (400 if bad.encode() in content else 200), answer

    async def deleted() -> bool:
        return (await worker.get(f"/tables/planes/{key}")).status == 404

    await until(deleted, "the row is deleted")
    await ask(worker.internal_url, "/internal/v1/status", {"Tablehouse-Proof": internal})
    worker.terminate()
    assert await worker.wait_exit() == 0
    said = worker.log_text()
    assert "key_hash" in said
    assert PASSWORD not in said
    assert PASSWORD.encode().hex() not in said
    assert "SENTINEL" not in said
