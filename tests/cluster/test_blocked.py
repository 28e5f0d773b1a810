"""Partitions that no restart helps: workers become ready without them, say why, and write nothing that none reads."""

import asyncio
from typing import Any

import aiohttp
from click.testing import CliRunner

from tablehouse.cli import main as cli
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.batches import CRC_AT, spoil_head
from tests.support.kafka import create_topic, delete_topic, produce, recreate_topic, unique
from tests.support.polling import until
from tests.support.topics import topics_of
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, table, tables


async def put(worker: WorkerProcess, target: str) -> tuple[int, Any]:
    """PUT the row 5; return the status and the answer."""
    async with aiohttp.ClientSession() as session, session.put(worker.url + target, json=5) as answer:
        return answer.status, await answer.json(content_type=None)


async def stop(*workers: WorkerProcess) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        assert await worker.wait_exit() == 0


async def check_answers(worker: WorkerProcess) -> None:
    row = await worker.get("/tables/one/a")
    assert (row.status, row.body) == (200, b"4")
    assert not {"tablehouse-lag-records", "tablehouse-staleness-ms"} & set(row.headers)
    assert (await worker.get("/tables/one/a?max_lag=1000")).status == 503

    async def no_copy_is_fresh() -> bool:
        # A standby notices with its next listing.
        return (await worker.get("/tables/one/a?read=any&max_staleness_ms=3600000")).status == 503

    await until(no_copy_is_fresh, "a standby does not say how fresh it is either")
    assert (await worker.get("/tables/one/none?read=any")).status == 503

    async def other_table_is_as_always() -> bool:
        # But for the rebalances in which a deleted topic is noticed.
        return (await worker.get("/tables/two/none")).status == 404

    await until(other_table_is_as_always, "no other table notices")
    status, refused = await put(worker, "/tables/one/a")
    assert (status, refused["code"]) == (503, "write_refused")
    assert (await put(worker, "/tables/two/b"))[0] == 200


async def two_workers(kafka: EmbeddedKafka, make_worker: MakeWorker) -> tuple[str, list[WorkerProcess]]:
    """Start two workers with tables `one` and `two`; return the source of `one`, and the workers once both have it."""
    bootstrap, lost, other, group = kafka.bootstrap_servers, unique("lost"), unique("other"), unique("blocked")
    for topic in (lost, other):
        await create_topic(bootstrap, topic, 1)
        await produce(bootstrap, topic, [(b"a", b"%d" % number, 0) for number in range(5)])
    definition = tables(
        *(table(name, topic) + "    writable: true\n" for name, topic in (("one", lost), ("two", other)))
    )
    workers = [make_worker(bootstrap, definition, group=group) for _ in range(2)]
    for worker in workers:
        worker.start()
    await all_ready(*workers)

    async def both_have_rows() -> bool:
        return all([(await worker.get("/tables/one/a?read=any")).body == b"4" for worker in workers])

    await until(both_have_rows, "owner and standby have the rows")
    return lost, workers


async def check_only_one_is_blocked(workers: list[WorkerProcess], why: str) -> None:
    """Check that the owner of `one` is ready and says why it is blocked, and that every worker answers as it should."""

    async def owner_of_one() -> WorkerProcess | None:
        states = {}
        for worker in workers:
            states.update({task["state"]: worker for task in await worker.tasks() if task["table"] == "one"})
        return states["suspended"] if set(states) == {"suspended", "standby"} else None

    owner = await until(owner_of_one, "one worker owns the table, and the other follows")

    async def only_it_is_blocked() -> bool:
        status, seen = await owner.document("/readyz")
        assert (status, len(seen["reasons"])) == (200, 1), seen
        assert seen["reasons"][0].startswith(f"partition 0 of table one is blocked: {why}")
        assert seen["layers"][-1] == {"name": "tasks", "ok": False, "behind": 0, "blocked": 1}
        return True

    await until(only_it_is_blocked, "nothing else keeps the worker")
    assert await owner.metric("tablehouse_partition_blocked", table="one") == 1
    for worker in workers:
        await check_answers(worker)


async def test_a_recreated_source_keeps_its_own_table_back_and_no_worker_from_being_ready(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    lost, workers = await two_workers(kafka, make_worker)
    bootstrap = kafka.bootstrap_servers
    await stop(*workers)
    await recreate_topic(bootstrap, lost)
    await produce(bootstrap, lost, [(b"a", b"other", 0)])
    for worker in workers:
        worker.start()
    await all_ready(*workers)
    await check_only_one_is_blocked(workers, "the source is refused")


async def test_a_source_that_is_deleted_keeps_its_rows_through_a_rolling_restart(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    lost, workers = await two_workers(kafka, make_worker)
    missing = f"the source is refused: the brokers do not know topic {lost} (deleted?)"
    await delete_topic(kafka.bootstrap_servers, lost)
    await check_only_one_is_blocked(workers, missing)
    for worker in workers:
        await stop(worker)
        worker.start()
        await worker.wait_ready()
        await check_only_one_is_blocked(workers, missing)
    assert lost not in await topics_of(kafka)


async def test_every_worker_refuses_to_write_to_a_partition_with_records_that_cannot_be_read_until_they_are_passed_over(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    bootstrap, topic, group = kafka.bootstrap_servers, unique("damaged"), unique("blocked")
    await create_topic(bootstrap, topic, 1)
    for number in range(2):
        await produce(bootstrap, topic, [(b"a", b"%d" % number, 0)])
    spoil_head(kafka, topic, 1, CRC_AT, bytes(4))
    definition = tables(table("one", topic) + "    writable: true\n")
    workers = [make_worker(bootstrap, definition, group=group) for _ in range(2)]
    for worker in workers:
        worker.start()
    await all_ready(*workers)

    async def refused_by_both() -> bool:
        for worker in workers:
            status, answer = await put(worker, "/tables/one/a")
            assert (status, answer.get("code")) == (503, "write_refused"), answer
            assert answer["detail"].startswith("nothing was written to partition 0 of table one, since no read would")
            assert f"offset 1 of {topic}[0] cannot be read" in answer["detail"]
            assert "skip them with `tablehouse skip`" in answer["detail"]
        return True

    await until(refused_by_both, "no worker writes what no read would show")
    flags = ["--bootstrap-servers", bootstrap, "--group", group, "--topic", topic, "--partition", "0"]
    skipped = await asyncio.to_thread(CliRunner().invoke, cli.main, ["skip", *flags, "--from", "1", "--to", "1"])
    assert skipped.exit_code == 0, skipped.output

    async def visible_on_both() -> bool:
        return {(await put(worker, "/tables/one/a?wait=visible"))[0] for worker in workers} == {200}

    await until(visible_on_both, "rows are written and seen again")
    await stop(*workers)
