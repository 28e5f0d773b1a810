"""A worker on loopback answers to names that no web page has, and to its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tablehouse.formats.partitioners import partition_of
from tablehouse.http.hosts import Hosts
from tablehouse.stores.rows import Row
from tests.support.http_workers import Reply, Worker, connected, one_worker, read_reply

LOCAL = ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:8080", "127.8.8.8", "[::1]", "[::1]:8080"]
OWN = [*LOCAL, "tablehouse:8080", "api.localhost", "localhost.", "192.168.1.7:8080"]
FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "a.b:c",
    "x.y@localhost",
]


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        running.local.rows["planes", partition_of("murmur2", b"k", 4), b"k"] = Row(b"1", 0, 1)
        yield running


async def ask(url: str, target: str, host: str, more: str = "") -> Reply:
    async with connected(url) as (reader, writer):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
        return await read_reply(reader)


@pytest.mark.parametrize("more", ["", "X-Any: 1\r\n"], ids=["plain", "full"])
async def test_a_row_is_answered_under_local_names_only(worker: Worker, more: str) -> None:
    for host in OWN:
        assert (await ask(worker.url, "/tables/planes/k", host, more)).body == b"1", host
    for host in FOREIGN:
        reply = await ask(worker.url, "/tables/planes/k", host, more)
        assert (reply.status, reply.json["code"]) == (421, "misdirected_request"), host
        assert "TABLEHOUSE_HTTP_HOST" in reply.json["detail"]


async def test_both_listeners_and_every_route_look_at_the_host(worker: Worker) -> None:
    for url, target in ((worker.url, "/cluster"), (worker.url, "/metrics"), (worker.internal, "/internal/v1/status")):
        assert (await ask(url, target, "evil.example")).status == 421, target
        assert (await ask(url, target, "localhost")).status == 200, target


async def test_a_client_of_http_1_0_needs_no_host(worker: Worker) -> None:
    async with connected(worker.url) as (reader, writer):
        writer.write(b"GET /tables/planes/k HTTP/1.0\r\n\r\n")
        assert (await read_reply(reader)).status == 200


def test_the_advertised_name_is_answered_to() -> None:
    hosts = Hosts.of_listener("127.0.0.1", "http://worker-1.example.com:9080")
    assert hosts is not None
    assert hosts.accepts("Worker-1.example.com:9080")
    assert not hosts.accepts("worker-2.example.com")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "worker-1.example.com"])  # noqa: S104 - nothing is bound
def test_a_listener_that_other_machines_reach_answers_to_every_name(host: str) -> None:
    assert Hosts.of_listener(host, "http://worker-1.example.com:9080") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_a_listener_on_loopback_looks_at_the_host(host: str) -> None:
    assert Hosts.of_listener(host, None) is not None
