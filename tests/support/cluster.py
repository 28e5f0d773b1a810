"""Whether the workers of a cluster hold and say exactly what the oracle says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from tests.support.oracle import FORMS, Expected, Record, contents, path_segment, replay_changelog, replay_source
from tests.support.polling import until
from tests.support.worker import WorkerProcess
from tests.support.worker import table as table_entry

# Clients rewrite these in a path, or leave them out.
_NO_SEGMENTS = {"", ".", ".."}

# Requests to one worker at the same time.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a GET; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class Client:
    """GETs targets exactly as they are written."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, url: str, context: object = None) -> Answer:
        """GET a URL whose path is percent-encoded already; traces get the context."""
        async with self._session.get(URL(url, encoded=True), trace_request_ctx=context) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, headers, await answer.read())


@asynccontextmanager
async def client(seconds: float = 20.0, traces: Sequence[aiohttp.TraceConfig] = ()) -> AsyncIterator[Client]:
    """Open a client whose requests may take this long."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=seconds),
        connector=aiohttp.TCPConnector(limit=0),
        # Bodies are compared as they stand.
        headers={"Accept-Encoding": "identity"},
        trace_configs=list(traces),
    ) as session:
        yield Client(session)


@dataclass(frozen=True, slots=True)
class Checked:
    """A table under test; payload is what its columns make of a value."""

    name: str
    topic: str
    partitions: int
    key: str = "string"
    value: str = "json"
    partitioner: str = "murmur2"
    #: What stands in tables.yaml for `key`, when it is more than the format's name.
    key_entry: str = ""
    columns: str = ""
    standbys: int = 1
    writable: bool = False
    payload: Callable[[bytes], bytes] = bytes

    def entry(self) -> str:
        """Return its entry in tables.yaml."""
        entry = table_entry(
            self.name,
            self.topic,
            key=self.key_entry or self.key,
            value=self.value,
            partitioner=self.partitioner,
            standbys=self.standbys,
        )
        entry += f"    columns: {self.columns}\n" if self.columns else ""
        return entry + ("    writable: true\n" if self.writable else "")

    def path(self, key: bytes) -> str:
        """Return the path of a row by the producer's key; some keys can be asked for in the query only."""
        segment = path_segment(key, FORMS[self.key])
        return f"/tables/{self.name}:get?key={segment}" if segment in _NO_SEGMENTS else f"/tables/{self.name}/{segment}"


async def digest_of(client: Client, worker: WorkerProcess, table: str, partition: int) -> Answer:
    """Ask the internal listener of a worker for the digest of a partition."""
    return await client.get(f"{worker.internal_url}/internal/v1/tables/{table}/{partition}:digest")


async def check_equal(
    bootstrap: str,
    group: str,
    workers: Sequence[WorkerProcess],
    tables: Iterable[Checked],
    strangers: Mapping[str, Sequence[bytes]] | None = None,
) -> None:
    """Check every table against the oracle, once everything that was produced is applied.

    Every partition has one owner. Its rows and those of each standby are the oracle's, in number and in content, as is
    what the changelog holds; every key is answered right by every worker; deleted keys are 404, and so are strangers,
    which by table are keys that never existed.
    """
    replayed: dict[str, Expected] = {}
    async with client() as http:
        for table in tables:
            if table.topic not in replayed:
                replayed[table.topic] = await replay_source(bootstrap, table.topic, table.partitions)
            expected = replayed[table.topic]
            await _check_contents(http, bootstrap, group, workers, table, expected)
            for worker in workers:
                await _check_answers(http, worker, table, expected, (strangers or {}).get(table.name, ()))


async def wait_applied(http: Client, workers: Sequence[WorkerProcess], table: Checked, ends: dict[int, int]) -> None:
    """Wait until each partition is active and its position is its topic's end, on exactly one worker."""

    async def applied() -> bool:
        for partition, end in ends.items():
            answers = [await digest_of(http, worker, table.name, partition) for worker in workers]
            held = [answer.json for answer in answers if answer.status == 200]
            owned = [copy for copy in held if copy["state"] == "active"]
            assert len(owned) == 1, f"{table.name}[{partition}] is owned by {len(owned)}: {[a.body for a in answers]}"
            for copy in held:
                assert copy["position_before"] == copy["position_after"] == end - 1, (partition, end, held)
        for worker in workers:
            tasks = [task for task in await worker.tasks() if task["table"] == table.name]
            waiting = [task for task in tasks if task["state"] not in {"active", "standby"}]
            assert not waiting, waiting
        return True

    await until(applied, f"table {table.name} has applied {ends}", 60.0)


async def _check_contents(
    http: Client,
    bootstrap: str,
    group: str,
    workers: Sequence[WorkerProcess],
    table: Checked,
    expected: Expected,
) -> None:
    await wait_applied(http, workers, table, dict(expected.ends))
    changelog = await replay_changelog(bootstrap, f"{group}-{table.name}-changelog", table.partitions)
    for partition, content in contents(expected, FORMS[table.key], table.payload).items():
        answers = [await digest_of(http, worker, table.name, partition) for worker in workers]
        assert {answer.status for answer in answers} <= {200, 421}, answers
        right = content.digest()
        place = f"{table.name}[{partition}]"
        for copy in [answer.json for answer in answers if answer.status == 200]:
            where = f"{place}: the {copy['state']} store of {copy['served_by']} differs from the topic"
            assert (copy["rows"], copy["rows_hash"]) == right, where
        assert changelog[partition].digest() == right, f"{place}: the changelog differs from the topic"


async def _check_answers(
    http: Client, worker: WorkerProcess, table: Checked, expected: Expected, strangers: Sequence[bytes]
) -> None:
    limit = asyncio.Semaphore(_AT_ONCE)
    ends = expected.ends

    async def check_row(record: Record) -> None:
        # Of the active: for a moment after a fault of its own a worker may be asked after its standby.
        path = table.path(record.key)
        path += ("&" if "?" in path else "?") + "read=active"
        async with limit:
            answer = await http.get(worker.url + path)
        about = f"{worker.url}{path}: {answer}"
        assert answer.status == 200, about
        assert record.value is not None
        assert answer.body == table.payload(record.value), about
        assert answer.headers["tablehouse-position"] == f"{record.partition}:{ends[record.partition] - 1}", about
        assert answer.headers["tablehouse-role"] == "active", about
        assert answer.headers["etag"].strip('"').endswith(f"-{record.partition}-{record.offset}"), about

    async def check_missing(key: bytes) -> None:
        async with limit:
            answer = await http.get(worker.url + table.path(key))
        about = f"{worker.url}{table.path(key)}: {answer}"
        assert answer.status == 404, about
        assert answer.json["code"] == "key_not_found", about
        assert answer.headers["tablehouse-role"] == "active", about

    missing = [record.key for record in expected.deleted()] + list(strangers)
    await asyncio.gather(
        *(check_row(record) for record in expected.rows().values()), *(check_missing(key) for key in missing)
    )
