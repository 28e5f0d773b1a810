"""Waits for the workers to be ready, and for the loaded records to be readable."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote

import httpx

from tablehouse.catalog.load import load_catalog
from tablehouse.demo.load import Last
from tablehouse.demo.workers import TABLES, DemoWorker
from tablehouse.errors import SetupError

_DEADLINE = 180.0  # seconds
_POLL = 0.1


async def wait_ready(client: httpx.AsyncClient, workers: Sequence[DemoWorker]) -> None:
    """Return once every worker is ready; raises SetupError if one ends, or at the deadline."""
    deadline = time.monotonic() + _DEADLINE
    for worker in workers:
        while True:
            answer = await _get(client, f"{worker.url}/readyz?verbose")
            if isinstance(answer, httpx.Response) and answer.status_code == HTTPStatus.OK:
                break
            for one in workers:
                if not one.runs:
                    raise SetupError(one.how_it_ended())
            if time.monotonic() > deadline:
                raise SetupError(
                    f"worker {worker.number} was not ready after {_DEADLINE:.0f} s (its log is {worker.log}): "
                    f"{_words(answer)}"
                )
            await asyncio.sleep(_POLL)


async def wait_caught_up(
    client: httpx.AsyncClient, workers: Sequence[DemoWorker], loaded: Mapping[tuple[str, int], Last]
) -> None:
    """Return once every table has applied all loaded records and serves them.

    Like any client, it reads a row of each partition, whose headers have the position. Raises SetupError if no worker
    is left, or at the deadline.
    """
    deadline = time.monotonic() + _DEADLINE
    for table in load_catalog(TABLES).tables.values():
        for (topic, _), last in loaded.items():
            if topic in table.topics:
                row = f"/tables/{table.name}/{quote(last.key, safe='')}"
                await _wait_position(client, workers, row, last.offset, deadline)


async def _wait_position(
    client: httpx.AsyncClient, workers: Sequence[DemoWorker], row: str, offset: int, deadline: float
) -> None:
    while True:
        asked = next((worker for worker in workers if worker.runs), None)
        if asked is None:
            raise SetupError(workers[0].how_it_ended())
        answer = await _get(client, asked.url + row)
        if isinstance(answer, httpx.Response) and answer.status_code == HTTPStatus.OK:
            _, _, position = answer.headers["Tablehouse-Position"].partition(":")
            if int(position) >= offset:
                return
        if time.monotonic() > deadline:
            raise SetupError(
                f"GET {row} did not reach position {offset} within {_DEADLINE:.0f} s (the log of worker "
                f"{asked.number} is {asked.log}): {_words(answer)}"
            )
        await asyncio.sleep(_POLL)


async def _get(client: httpx.AsyncClient, url: str) -> httpx.Response | httpx.TransportError:
    try:
        return await client.get(url)
    except httpx.TransportError as error:
        return error


def _words(answer: httpx.Response | httpx.TransportError) -> str:
    if isinstance(answer, httpx.TransportError):
        return f"{type(answer).__name__}: {answer}"
    position = answer.headers.get("Tablehouse-Position", "unknown")
    return f"status {answer.status_code}, position {position}: {answer.text[:2000]}"
