"""If-Match and If-None-Match of writes, decided by the owner of the key, through real servers."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
import pytest_asyncio

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import DeadlineExceeded, NotOwner, PartitionRestoring, RequestError, SourceUnavailable
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import ProducerRecord
from tablehouse.routing import decisions
from tablehouse.stores.rows import Row
from tests.support.cluster_fakes import Placed, snapshot
from tests.support.http_workers import Reply, Worker, one_worker, send, share, start_worker, two_workers

JSON = {"Content-Type": "application/json"}
ABSENT = {"If-None-Match": "*"}
PRESENT = {"If-Match": "*"}
NEAR = next(key for key in (b"k%d" % n for n in range(99)) if partition_of("murmur2", key, 4) == 1)
FAR = next(key for key in (b"k%d" % n for n in range(99)) if partition_of("murmur2", key, 4) == 2)


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        yield running


async def write(
    worker: Worker,
    key: bytes,
    body: bytes | None,
    headers: Mapping[str, str],
    query: str = "",
) -> Reply:
    """PUT a body, or DELETE without one."""
    lines = [f"{'DELETE' if body is None else 'PUT'} /tables/planes/{key.decode()}{query} HTTP/1.1", "Host: test"]
    given = headers if body is None else {**JSON, "Content-Length": str(len(body)), **headers}
    lines += [f"{name}: {value}" for name, value in given.items()]
    return await send(worker.url, "\r\n".join([*lines, "", ""]).encode() + (body or b""))


def put(worker: Worker, key: bytes, value: bytes, offset: int = 41) -> None:
    worker.local.rows["planes", partition_of("murmur2", key, 4), key] = Row(value, 0, offset)


async def tag_of(worker: Worker, key: bytes, headers: Mapping[str, str] | None = None) -> str:
    return (await worker.get(f"/tables/planes/{key.decode()}", headers)).headers["etag"]


def check_failed(reply: Reply, tag: str | None) -> None:
    """Check that nothing was written since the row has another tag, or is not there."""
    assert (reply.status, reply.json["code"], reply.json["retryable"]) == (412, "precondition_failed", False), reply
    assert reply.headers.get("etag") == tag
    assert reply.json.get("etag") == tag


@pytest_asyncio.fixture(params=["owner", "other"])
async def asked(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Worker, Worker]]:
    """Run a worker that is asked, and the owner of FAR."""
    async with two_workers() as (other, owner):
        yield (owner if request.param == "owner" else other), owner


async def test_a_row_is_written_if_it_is_the_one_that_the_caller_has(asked: tuple[Worker, Worker]) -> None:
    worker, owner = asked
    put(owner, FAR, b"1")
    tag = await tag_of(worker, FAR)
    first = await write(worker, FAR, b"2", {"If-Match": tag})
    assert (first.status, first.json["offset"]) == (200, 100)
    assert first.headers["tablehouse-position"] == "2:100"
    # The tag of the row as it is now, for the next write.
    assert first.json["etag"] == await tag_of(worker, FAR)
    check_failed(await write(worker, FAR, b"3", {"If-Match": tag}), first.json["etag"])
    second = await write(worker, FAR, b"3", {"If-Match": first.json["etag"]})
    assert second.status == 200
    check_failed(await write(worker, FAR, None, {"If-Match": tag}), second.json["etag"])
    deleted = await write(worker, FAR, None, {"If-Match": second.json["etag"]})
    assert deleted.status == 200
    assert "etag" not in deleted.json
    assert [record[1:] for record in owner.source.records] == [(2, FAR, b"2"), (2, FAR, b"3"), (2, FAR, None)]
    check_failed(await write(worker, FAR, b"4", {"If-Match": second.json["etag"]}), None)
    assert worker is owner or worker.source.records == []


async def test_a_row_is_written_only_if_there_is_none_or_only_if_there_is_one(asked: tuple[Worker, Worker]) -> None:
    worker, _ = asked
    check_failed(await write(worker, FAR, b"1", PRESENT), None)
    check_failed(await write(worker, FAR, None, PRESENT), None)
    created = await write(worker, FAR, b"1", ABSENT)
    assert created.status == 200
    check_failed(await write(worker, FAR, b"2", ABSENT), created.json["etag"])
    check_failed(await write(worker, FAR, None, ABSENT), created.json["etag"])
    assert (await write(worker, FAR, b"2", PRESENT)).status == 200
    assert (await write(worker, FAR, None, PRESENT)).status == 200
    assert (await write(worker, FAR, None, ABSENT)).status == 200
    assert (await write(worker, FAR, b"5", {**ABSENT, **PRESENT})).status == 412


async def test_every_form_of_a_row_s_tag_is_its_tag_and_a_weak_one_is_not(worker: Worker) -> None:
    put(worker, NEAR, b'"%b"' % (b"x" * 5_000))
    tag, compressed = await tag_of(worker, NEAR), await tag_of(worker, NEAR, {"Accept-Encoding": "gzip"})
    assert compressed == tag[:-1] + '-gzip"'
    for good in (
        tag,
        compressed,
        tag[:-1] + '-avro-7"',
        tag[:-1] + '-avro-file-gzip"',
        f'"a", {tag} ,"b"',
        f'W/"a",{tag}',
    ):
        put(worker, NEAR, b"1")
        assert (await write(worker, NEAR, b"1", {"If-Match": good})).status == 200, good
    put(worker, NEAR, b"1")
    other = tag.replace("-41", "-410")
    for bad in (f"W/{tag}", other, tag[:-1] + '-x"', '"41"', tag.replace("-1-", "-2-"), tag.replace(tag[1:3], "zz")):
        check_failed(await write(worker, NEAR, b"1", {"If-Match": bad}), tag)


@pytest.mark.parametrize(
    ("headers", "parameter"),
    [
        ({"If-Match": "abc"}, "If-Match"),
        ({"If-Match": '"a" "b"'}, "If-Match"),
        ({"If-Match": '"a'}, "If-Match"),
        ({"If-Match": ""}, "If-Match"),
        ({"If-Match": '*, "a"'}, "If-Match"),
        ({"If-None-Match": '"a"'}, "If-None-Match"),
        ({"If-None-Match": ""}, "If-None-Match"),
        ({"If-Unmodified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, "If-Unmodified-Since"),
        ({"Content-Range": "bytes 0-1/2"}, "Content-Range"),
    ],
)
async def test_what_is_no_condition_is_refused(worker: Worker, headers: Mapping[str, str], parameter: str) -> None:
    reply = await write(worker, NEAR, b"1", headers)
    assert (reply.status, reply.json["code"], reply.json["parameter"]) == (400, "invalid_parameter", parameter)
    assert worker.source.records == []


async def test_a_key_that_may_lie_in_several_partitions_has_no_owner_who_could_decide() -> None:
    people = TableSpec("planes", SourceSpec("planes-topic", KeySpec("json"), ValueSpec("json")), writable=True)
    worker = await start_worker("a", Catalog({"planes": people}))
    worker.view.swap(snapshot(Placed("a", worker.internal, {"planes-topic": range(4)})))
    try:
        several = b"%22%F0%9F%98%81%22"
        reply = await write(worker, several, b"1", ABSENT)
        assert (reply.status, reply.json["code"]) == (400, "invalid_parameter")
        assert "several partitions" in reply.json["detail"]
        assert (await write(worker, b"7", b"1", ABSENT)).status == 200
    finally:
        await worker.server.stop(1.0)


async def increment(worker: Worker, key: bytes, times: int) -> None:
    """Add 1 to a row some times, each time to what was read."""
    for _ in range(times):
        while True:
            read = await worker.get(f"/tables/planes/{key.decode()}")
            if read.status == 404:
                condition, count = ABSENT, 0
            else:
                condition, count = {"If-Match": read.headers["etag"]}, int(read.body)
            reply = await write(worker, key, b"%d" % (count + 1), condition)
            if reply.status == 200:
                break
            assert reply.status == 412, reply


async def test_of_all_who_write_a_row_at_once_each_writes_on_what_the_one_before_wrote() -> None:
    async with two_workers() as workers:
        await asyncio.gather(*(increment(workers[number % 2], FAR, 5) for number in range(8)))
        for worker in workers:
            assert (await worker.get(f"/tables/planes/{FAR.decode()}")).body == b"40"
        assert [record[3] for record in workers[1].source.records] == [b"%d" % (number + 1) for number in range(40)]
        assert workers[0].source.records == []


async def test_what_was_written_before_the_decision_is_seen_and_what_comes_after_it_is_overwritten(
    worker: Worker,
) -> None:
    put(worker, NEAR, b"1")
    tag = await tag_of(worker, NEAR)

    async def applies_what_was_there(_: int) -> None:
        # Another producer's record, which had not been applied when the request came.
        put(worker, NEAR, b"another's", 50)

    worker.owner.catching_up = applies_what_was_there
    check_failed(await write(worker, NEAR, b"2", {"If-Match": tag}), await tag_of(worker, NEAR))

    worker.owner.catching_up = None
    tag = await tag_of(worker, NEAR)
    append = worker.source.append

    async def behind_another(
        table: str,
        partition: int,
        record: ProducerRecord,
        timeout: float,  # noqa: ASYNC109
    ) -> int:
        # Another producer's record, after the decision and before the write.
        await append(table, partition, record._replace(value=b"between"), timeout)
        return await append(table, partition, record, timeout)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(worker.source, "append", behind_another)
        assert (await write(worker, NEAR, b"2", {"If-Match": tag})).status == 200
    assert [record[3] for record in worker.source.records] == [b"between", b"2"]


async def test_writes_of_one_key_wait_for_each_other_and_those_of_others_do_not(worker: Worker) -> None:
    begun: list[int] = []
    has_begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(partition: int) -> None:
        begun.append(partition)
        has_begun.set()
        if partition == 1:
            await go_on.wait()

    worker.owner.catching_up = wait
    first = asyncio.create_task(write(worker, NEAR, b"1", ABSENT))
    await asyncio.wait_for(has_begun.wait(), 5)
    second = asyncio.create_task(write(worker, NEAR, b"2", ABSENT))
    assert (await write(worker, FAR, b"1", ABSENT)).status == 200
    assert begun == [1, 2]
    assert not first.done()
    go_on.set()
    assert (await first).status == 200
    check_failed(await second, await tag_of(worker, NEAR))
    assert begun == [1, 2, 1]


async def test_more_than_so_many_at_once_are_refused(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_UNDER_WAY", 0)
    reply = await write(worker, NEAR, b"1", ABSENT)
    assert (reply.status, reply.json["code"]) == (503, "overloaded")
    assert worker.source.records == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (SourceUnavailable("nothing was written"), 503, "source_unavailable"),
        (NotOwner("the lease is over"), 503, "partition_unassigned"),
        (DeadlineExceeded("it may have been written"), 504, "deadline_exceeded"),
    ],
)
async def test_what_keeps_an_owner_from_writing_is_the_answer(
    asked: tuple[Worker, Worker], error: RequestError, status: int, code: str
) -> None:
    worker, owner = asked
    owner.owner.errors[2] = error
    reply = await write(worker, FAR, b"1", ABSENT)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert owner.source.records == []
    metrics = (await worker.get("/metrics")).body.decode()
    result = "unknown" if status == 504 else "unavailable"
    assert f'tablehouse_writes_total{{result="{result}",table="planes"}} 1.0' in metrics


async def test_an_owner_that_cannot_tell_what_is_there_writes_nothing(asked: tuple[Worker, Worker]) -> None:
    worker, owner = asked
    owner.local.errors[2] = PartitionRestoring("40 to go")
    for condition in (ABSENT, PRESENT, {"If-Match": '"a"'}):
        reply = await write(worker, FAR, b"1", condition)
        assert (reply.status, reply.json["code"]) == (503, "partition_restoring")
    assert owner.source.records == []


async def test_after_a_rebalance_the_new_owner_decides() -> None:
    async with two_workers() as workers:
        a, b = workers
        put(a, FAR, b"1")
        # Worker a does not know of the new assignment before it is told that the old one is over.
        asked_of_b = asyncio.Event()

        async def moved(_: int) -> None:
            asked_of_b.set()
            share(workers, {"a": [0, 1, 2], "b": [3]}, generation=8)
            raise NotOwner("it has moved")

        b.owner.catching_up = moved
        reply = await write(a, FAR, b"2", PRESENT)
        assert asked_of_b.is_set()
        assert (reply.status, [record[3] for record in a.source.records]) == (200, [b"2"])
        assert b.source.records == []


async def test_an_owner_that_cannot_be_connected_to_has_written_nothing() -> None:
    async with one_worker() as worker:
        worker.view.swap(snapshot(Placed("gone", "http://127.0.0.1:9", {"planes-topic": range(4)})))
        reply = await write(worker, FAR, b"1", ABSENT)
        assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None])
async def test_of_an_owner_that_was_asked_and_gave_no_answer_nobody_knows_whether_it_wrote(
    answer: bytes | None,
) -> None:
    seen: list[bytes] = []
    open_here: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /internal/v1/link "):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        seen.append(head)
        open_here.append(writer)
        if answer is not None:
            writer.write(answer)
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with one_worker(timeout=0.5) as worker:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        worker.view.swap(snapshot(Placed("silent", url, {"planes-topic": range(4)})))
        reply = await write(worker, FAR, b"1", ABSENT)
    assert seen[0].startswith(b"POST /internal/v1/tables/planes/2:write ")
    if answer:
        # It is no worker's, so nothing was written.
        assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")
    else:
        assert (reply.status, reply.json["code"]) == (504, "deadline_exceeded")
        assert "may have happened" in reply.json["detail"]
    for writer in open_here:
        writer.close()
    server.close()


async def test_a_condition_crosses_to_the_owner_with_a_proof_of_the_secret() -> None:
    workers = [await start_worker(name, secrets=["correct-horse-battery"]) for name in "ab"]
    share(workers, {"a": [0, 1], "b": [2, 3]})
    try:
        assert (await write(workers[0], FAR, b"1", ABSENT)).status == 200
        check_failed(await write(workers[0], FAR, b"2", ABSENT), await tag_of(workers[0], FAR))
    finally:
        for worker in workers:
            await worker.server.stop(1.0)


async def test_a_conditional_write_can_wait_until_it_is_seen(asked: tuple[Worker, Worker]) -> None:
    worker, _ = asked
    reply = await write(worker, FAR, b"1", ABSENT, "?wait=visible")
    assert (reply.status, reply.json["visible"]) == (200, True)


async def test_failed_conditions_are_counted(worker: Worker) -> None:
    await write(worker, NEAR, b"1", PRESENT)
    metrics = (await worker.get("/metrics")).body.decode()
    assert 'tablehouse_writes_total{result="precondition_failed",table="planes"} 1.0' in metrics


async def test_a_table_that_the_owner_does_not_let_callers_write_is_not_written() -> None:
    def catalog(*, writable: bool) -> Catalog:
        source = SourceSpec("planes-topic", KeySpec("string"), ValueSpec("json"))
        return Catalog({"planes": TableSpec("planes", source, writable=writable)})

    workers: Sequence[Worker] = [
        await start_worker("a", catalog(writable=True)),
        await start_worker("b", catalog(writable=False)),
    ]
    share(workers, {"a": [0, 1], "b": [2, 3]})
    try:
        reply = await write(workers[0], FAR, b"1", ABSENT)
        assert reply.status == 503
        assert "does not let callers write" in reply.json["tried"][0]["reason"]
        assert workers[1].source.records == []
    finally:
        for worker in workers:
            await worker.server.stop(1.0)
