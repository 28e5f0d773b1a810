"""Keys that real clients send as query parameters: each is the key that its caller meant."""

import asyncio
import shutil
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import httpx
import pytest
import pytest_asyncio

from tablehouse.formats.partitioners import partition_of
from tablehouse.stores.rows import Row
from tests.support.http_workers import Worker, one_worker

#: A blank, a plus, what separates parameters in some frameworks, a percent sign, and text beyond ASCII.
KEYS = ["EWR 2013-01-01T06:00:00Z", "1+1 = 2", " ", "+", "a;b&c", "100%", "caf\u00e9 \u6771\u4eac", "%20+%2B", ""]

#: fetch decodes text, so rows are UTF-8 here.
NODE = """
const [, url, key] = process.argv;
fetch(url + "?" + new URLSearchParams({key})).then(answer => answer.text()).then(text => process.stdout.write(text));
"""
GO = """
package main
import ("fmt"; "net/url"; "os")
func main() { fmt.Print(url.Values{"key": {os.Args[1]}}.Encode()) }
"""


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        for key in KEYS:
            encoded = key.encode()
            running.local.rows["planes", partition_of("murmur2", encoded, 4), encoded] = Row(encoded, 0, 1)
        yield running


async def with_urllib(url: str, key: str) -> bytes:
    def ask() -> bytes:
        target = f"{url}?{urllib.parse.urlencode({'key': key})}"
        with urllib.request.urlopen(target, timeout=10) as answer:  # noqa: S310 - a loopback URL
            return bytes(answer.read())

    return await asyncio.to_thread(ask)


async def with_httpx(url: str, key: str) -> bytes:
    async with httpx.AsyncClient() as client:
        return (await client.get(url, params={"key": key})).content


async def with_aiohttp(url: str, key: str) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(url, params={"key": key}) as answer:
        return await answer.read()


async def with_curl(url: str, key: str) -> bytes:
    return await run("curl", "-sG", "--data-urlencode", f"key={key}", url)


async def with_node(url: str, key: str) -> bytes:
    return await run("node", "-e", NODE, url, key)


async def run(program: str, *arguments: str) -> bytes:
    """Return what a program prints."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine")
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=asyncio.subprocess.PIPE)
    printed, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    return printed


@pytest.mark.parametrize("client", [with_urllib, with_httpx, with_aiohttp, with_curl, with_node])
async def test_a_client_gets_the_row_of_the_key_that_it_encodes_itself(
    worker: Worker, client: Callable[[str, str], Awaitable[bytes]]
) -> None:
    for key in KEYS:
        assert await client(f"{worker.url}/tables/planes:get", key) == key.encode(), key


async def test_a_query_that_go_encodes_names_the_key_that_was_meant(worker: Worker, tmp_path: Path) -> None:
    source = tmp_path / "main.go"
    source.write_text(GO, "utf-8")
    for key in KEYS[:2]:
        query = (await run("go", "run", str(source), key)).decode()
        assert (await worker.get(f"/tables/planes:get?{query}")).body == key.encode(), query


async def test_a_write_that_a_client_encodes_is_of_the_key_that_was_meant(worker: Worker) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.put(
            f"{worker.url}/tables/planes:get",
            params={"key": "New York"},
            content=b"1",
            headers={"Content-Type": "application/json"},
        )
    assert answer.status_code == 200, answer.text
    assert [key for _, _, key, _ in worker.source.records] == [b"New York"]
