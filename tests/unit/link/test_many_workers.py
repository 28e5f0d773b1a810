"""Links of two hundred workers to one: all are served, and all come back after it was restarted."""

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from tablehouse.errors import RequestError
from tablehouse.formats.partitioners import partition_of
from tablehouse.link.peer import LinkPeer
from tablehouse.link.server import LinkServer
from tablehouse.model import DEFAULT_CONSISTENCY, HostInfo
from tablehouse.routing.ports import Terms
from tablehouse.routing.tables import routed_tables
from tablehouse.stores.rows import Row
from tablehouse.tasks.questions import Get
from tablehouse.worker.http_side import INTERNAL_SHARE
from tests.support.cluster_fakes import CATALOG
from tests.support.http_workers import Worker, share, start_worker
from tests.support.link_peers import link_peer
from tests.support.polling import until
from tests.support.schemas import NO_REGISTRY

WORKERS, QUESTIONS = 200, 20
KEYS = [b"key-%d" % number for number in range(WORKERS * QUESTIONS)]

DIGEST = routed_tables(CATALOG, "g", NO_REGISTRY)["planes"].digest


async def start(internal_port: int = 0) -> Worker:
    """Start a worker that has a row for each key, which names it."""
    worker = await start_worker("b", internal_port=internal_port, connections=INTERNAL_SHARE * WORKERS)
    share([worker], {"b": [0, 1, 2, 3]})
    for key in KEYS:
        worker.local.rows["planes", partition_of("murmur2", key, 4), key] = Row(b'"%b"' % key, 1_700_000_000_000, 41)
    return worker


def links(worker: Worker) -> int:
    found = worker.server._internal.links  # noqa: SLF001 - there is no other way to see them
    assert isinstance(found, LinkServer)
    return len(found)


async def ask(peer: LinkPeer, host: HostInfo, key: bytes) -> None:
    """Ask for a row, and check that it is the key's; raises RequestError."""
    partition = partition_of("murmur2", key, 4)
    terms = Terms(0.0, 20.0, DIGEST, 4, 7, "r")
    answered = await peer.at(host).answer("planes", partition, Get(key), DEFAULT_CONSISTENCY, terms)
    assert answered.result.row is not None
    assert answered.result.row.payload == b'"%b"' % key


async def test_two_hundred_workers_have_a_link_each_and_all_come_back_after_a_restart() -> None:
    worker = await start()
    host = HostInfo("b", 1, worker.internal)
    async with AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(link_peer(HostInfo(f"w{number}", 1, f"http://w{number}")))
            for number in range(WORKERS)
        ]

        async def all_of(number: int) -> None:
            keys = KEYS[number * QUESTIONS : (number + 1) * QUESTIONS]
            await asyncio.gather(*(ask(peers[number], host, key) for key in keys))

        try:
            await asyncio.gather(*(all_of(number) for number in range(WORKERS)))
            assert links(worker) == WORKERS
            await worker.server.stop(0)
            with pytest.raises(RequestError):
                await all_of(0)
            # All of them connect again at the same moment.
            worker = await start(urlsplit(host.url).port or 0)
            await asyncio.gather(*(all_of(number) for number in range(WORKERS)))
            assert links(worker) == WORKERS
            for peer in peers[1:]:
                await peer.close()

            async def left() -> bool:
                return links(worker) == 1

            await until(left, "the links of the others are closed")
            await all_of(0)
        finally:
            await worker.server.stop(0)
