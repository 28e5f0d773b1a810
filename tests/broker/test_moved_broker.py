"""Brokers that are somewhere else than before, and clients that know where to ask for them."""

import asyncio
import itertools
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiokafka.client import AIOKafkaClient

from bench.proxy import Proxy
from tablehouse.kafka.client import Connection
from tablehouse.kafka.outages import explain_outage
from tablehouse.kafka.rebootstrap import MIN_UPDATE_INTERVAL, rebootstrap
from tablehouse.testing import processes
from tablehouse.testing.kafka import EmbeddedKafka, Listener
from tests.support.dead_letters import letters
from tests.support.engine import new_source, running_engine
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, make_worker, table, tables

__all__ = ["make_worker"]


#: A name that a listener of the broker advertises; only the stub of a resolver below knows it.
NAME = "kafka.test"
NAMED = Listener("named", "PLAINTEXT", {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder of the broker, which moves with it."""
    return tmp_path_factory.mktemp("moving-kafka")


@pytest.fixture(scope="module")
def before(folder: Path) -> Iterator[EmbeddedKafka]:
    """Run a broker where the clients find it first; the last test of this file has it move."""
    port = processes.free_port()
    advertised = f"PLAINTEXT://127.0.0.1:{port},NAMED://{NAME}:{NAMED.port}"
    with EmbeddedKafka(folder, port=port, listeners=[NAMED], properties={"advertised.listeners": advertised}) as broker:
        yield broker


async def test_a_name_that_leads_to_another_address_later_is_resolved_again(
    before: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group, definition = await new_source(before)
    addresses = {NAME: "127.0.0.9"}
    resolve = asyncio.get_running_loop().getaddrinfo

    async def stub(host: str, port: int, **options: int) -> object:
        return await resolve(addresses.get(host, host), port, **options)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", stub)
    line = Proxy(NAMED.port)
    server = await asyncio.start_server(line.accept, addresses[NAME], NAMED.port)
    async with running_engine(before, tmp_path, definition, group, bootstrap_servers=f"{NAME}:{NAMED.port}") as running:
        await running.wait_active(1)
        assert line.connections > 0
        server.close()
        addresses[NAME] = "127.0.0.1"
        await line.stop()

        await produce(before.bootstrap_servers, topic, rows(0, 100))
        await running.check_equal("t", 1)


async def test_a_broker_that_advertises_an_address_where_it_cannot_be_reached_is_named_with_it(
    before: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    del before  # which listens there
    resolve = asyncio.get_running_loop().getaddrinfo

    async def stub(host: str, port: int, **options: int) -> object:
        if host == NAME:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await resolve(host, port, **options)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", stub)

    reason = await explain_outage(Connection(NAMED.bootstrap_servers, "test"), "no answer")

    assert reason.startswith(f"broker 1 advertises {NAME}:{NAMED.port} (advertised.listeners)")
    assert "Name or service not known" in reason
    assert reason.endswith(" (no answer)")


async def test_a_client_that_asks_for_a_leader_again_and_again_does_so_ten_times_a_second_at_most(
    before: EmbeddedKafka,
) -> None:
    connection = Connection(before.bootstrap_servers, "test")
    client = AIOKafkaClient(**connection.arguments())
    await client.bootstrap()
    asked: list[float] = []
    update = client._metadata_update  # noqa: SLF001 - what reaches the broker is counted here

    async def counted(*arguments: object) -> object:
        asked.append(time.monotonic())
        return await update(*arguments)

    client._metadata_update = counted  # noqa: SLF001
    rebootstrap(client, connection)
    try:
        # As a producer does for a batch whose partition has no leader, because its topic was deleted.
        for _ in range(5):
            await client.force_metadata_update()
    finally:
        await client.close()
    assert len(asked) >= 5
    assert all(later - earlier >= 0.9 * MIN_UPDATE_INTERVAL for earlier, later in itertools.pairwise(asked))


async def test_a_broker_that_comes_back_at_another_address_of_the_bootstrap_list_is_found_by_every_client(
    before: EmbeddedKafka, make_worker: MakeWorker, folder: Path
) -> None:
    later = processes.free_port()
    bootstrap = f"{before.bootstrap_servers},127.0.0.1:{later}"
    topic, group = unique("source"), unique("group")
    await create_topic(before.bootstrap_servers, topic, 2)
    await produce(before.bootstrap_servers, topic, rows(0, 100))
    worker = make_worker(bootstrap, tables(table("t", topic) + "    writable: true\n"), group=group)
    worker.start()
    await worker.wait_active()
    # Each of its clients has a connection by now.
    await put(worker, "k1")
    await produce(before.bootstrap_servers, topic, [(b"bad", b"no JSON", 0)])
    await dead_letters(before, group, 1)

    await asyncio.to_thread(before.stop)
    await until(says(worker, "no broker reachable", before.bootstrap_servers, f"127.0.0.1:{later}"), "what was tried")
    with EmbeddedKafka(folder, port=later) as after:
        await produce(after.bootstrap_servers, topic, [*rows(100, 200), (b"bad", b"no JSON", 0)])
        await worker.wait_active()
        await put(worker, "k2")
        await dead_letters(after, group, 2)
        for key, value, _ in rows(100, 200):
            reply = await worker.get(f"/tables/t/{key.decode()}?read=active")
            assert (reply.status, reply.body) == (200, value), reply

        async def nothing_left_to_say() -> bool:
            _, document = await worker.document("/readyz")
            assert document["reasons"] == []
            return True

        await until(nothing_left_to_say, "the outage is over")


def rows(start: int, end: int) -> list[tuple[bytes, bytes, int | None]]:
    return [(b"k%d" % number, b'{"n":%d}' % number, None) for number in range(start, end)]


async def put(worker: WorkerProcess, key: str) -> None:
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{worker.url}/tables/t/{key}?wait=visible", data=b'{"put":true}', headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def dead_letters(kafka: EmbeddedKafka, group: str, count: int) -> None:
    async def written() -> bool:
        return len(await letters(kafka.bootstrap_servers, f"{group}-dead-letters")) == count

    await until(written, f"{count} dead letters are written")


def says(worker: WorkerProcess, *words: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        status, document = await worker.document("/readyz")
        assert status == 200, "a worker that was ready stays in the load balancer"
        assert [layer["ok"] for layer in document["layers"] if layer["name"] == "broker"] == [False], document
        assert all(word in " ".join(document["reasons"]) for word in words), document
        return True

    return ask
