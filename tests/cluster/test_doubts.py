"""Keys that lie where nobody looks for them: no worker may call a miss a proof any more, rows are served as before."""

import json
from collections.abc import Sequence
from contextlib import suppress

from tablehouse.formats.partitioners import partition_of
from tablehouse.model import TopicPartition
from tablehouse.tasks.records import POSITION_KEY, PositionRecord, decode
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.changelog import log_reader, read_to
from tests.support.kafka import add_partitions, create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, table, tables

PARTITIONS = 4
KEYS = [b"k%d" % number for number in range(40)]

#: For each partition a key that it would hold, and that nobody writes.
ABSENT = {partition_of("murmur2", b"absent-%d" % number, PARTITIONS): b"absent-%d" % number for number in range(40)}


async def two_workers(kafka: EmbeddedKafka, make_worker: MakeWorker, topic: str) -> list[WorkerProcess]:
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    await produce(kafka.bootstrap_servers, topic, [(key, b"1", None) for key in KEYS])
    group = unique("doubts")
    workers = [
        make_worker(kafka.bootstrap_servers, tables(table("one", topic, standbys=0)), group=group) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    await all_ready(*workers)

    async def each_holds_its_half() -> bool:
        return [len(await worker.tasks()) for worker in workers] == [PARTITIONS // 2] * 2

    await until(each_holds_its_half, "each worker holds its half")
    return workers


async def misses(workers: Sequence[WorkerProcess]) -> set[tuple[int, str]]:
    """Ask every worker for a key that is not there of each partition."""
    answers = [await worker.get(f"/tables/one/{key.decode()}") for worker in workers for key in ABSENT.values()]
    return {(answer.status, answer.json["code"]) for answer in answers}


async def check_rows(workers: Sequence[WorkerProcess]) -> None:
    for worker in workers:
        for key in KEYS:
            answer = await worker.get(f"/tables/one/{key.decode()}")
            assert (answer.status, answer.body) == (200, b"1")


async def told(bootstrap: str, changelog: str) -> list[bool]:
    """Say of each changelog partition whether its newest position tells of a misplaced key."""
    async with log_reader(bootstrap) as reader:
        partitions = [TopicPartition(changelog, number) for number in range(PARTITIONS)]
        ends = await reader.bounds(partitions)
        return [
            [
                decode(PositionRecord, record.value or b"").misplaced is not None
                for record in await read_to(reader, partition, 0, ends[partition].end)
                if record.key == POSITION_KEY
            ][-1:]
            == [True]
            for partition in partitions
        ]


async def test_one_key_in_the_wrong_partition_ends_every_404_of_the_table_on_every_worker_and_through_restarts(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("misplaced")
    workers = await two_workers(kafka, make_worker, topic)
    assert set(ABSENT) == set(range(PARTITIONS))
    assert await misses(workers) == {(404, "key_not_found")}

    wrong = (partition_of("murmur2", b"lost", PARTITIONS) + 1) % PARTITIONS
    [(_, offset)] = await produce(kafka.bootstrap_servers, topic, [(b"lost", b"1", wrong)])

    async def all_refused() -> bool:
        return await misses(workers) == {(503, "misplaced_keys")}

    await until(all_refused, "no worker answers 404")

    async def told_by_all() -> bool:
        return all(await told(kafka.bootstrap_servers, f"{workers[0].group}-one-changelog"))

    await until(told_by_all, "every partition's changelog tells of it")
    refused = await workers[0].get("/tables/one/lost")
    assert refused.status == 503
    assert f"offset {offset} of {topic}[{wrong}]" in refused.json["detail"]
    assert refused.headers["retry-after"] == "60"
    await check_rows(workers)
    for worker in workers:
        status, seen = await worker.document("/readyz")
        assert status == 200
        [reason] = [reason for reason in seen["reasons"] if "table one" in reason and topic in reason]
        for path in ("/tables/one", "/tables", "/cluster"):
            _, described = await worker.document(path)
            assert reason in json.dumps(described, ensure_ascii=False)
        _, one = await worker.document("/tables/one")
        assert {partition["lag_records"] for partition in one["partition_details"]} == {None}
        assert await worker.metric("tablehouse_misses_in_doubt", table="one") == 1

    # Every partition's position has it by now, so there is no 404 from the first answer on.
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.start()
    answers: set[tuple[int, str]] = set()

    async def ready_again() -> bool:
        for worker in workers:
            with suppress(OSError):
                answers.update(await misses([worker]))
        return all([(await worker.document("/readyz"))[0] == 200 for worker in workers])

    await until(ready_again, "both are ready again", 60)
    answers |= await misses(workers)
    assert (503, "misplaced_keys") in answers
    assert {status for status, _ in answers} == {503}
    await check_rows(workers)


async def test_partitions_added_to_a_source_under_running_workers_end_every_404_with_both_numbers(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("growing")
    workers = await two_workers(kafka, make_worker, topic)
    assert await misses(workers) == {(404, "key_not_found")}
    await add_partitions(kafka.bootstrap_servers, topic, PARTITIONS + 2)

    async def all_refused() -> bool:
        return await misses(workers) == {(503, "misplaced_keys")}

    await until(all_refused, "no worker answers 404")
    refused = await workers[0].get("/tables/one/absent-0")
    assert (
        f"topic {topic} has {PARTITIONS + 2} partitions and the table was built with {PARTITIONS}"
        in (refused.json["detail"])
    )
    await check_rows(workers)
    for worker in workers:
        assert any("new version" in reason for reason in (await worker.document("/readyz"))[1]["reasons"])
        assert worker.exit_code is None


async def test_a_worker_that_restarts_after_growth_serves_as_the_others_do_and_all_tables_of_other_topics(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, other, group = unique("growing"), unique("steady"), unique("doubts")
    for name in (topic, other):
        await create_topic(kafka.bootstrap_servers, name, PARTITIONS)
        await produce(kafka.bootstrap_servers, name, [(key, b"1", None) for key in KEYS])
    definition = tables(table("one", topic), table("two", other))
    workers = [make_worker(kafka.bootstrap_servers, definition, group=group) for _ in range(2)]
    for worker in workers:
        worker.start()
    await all_ready(*workers)
    await add_partitions(kafka.bootstrap_servers, topic, PARTITIONS + 2)
    answers: set[tuple[int, str]] = set()
    # One before the other, so that workers from before and after the growth are in the group.
    for worker in workers:
        worker.terminate()
        assert await worker.wait_exit() == 0
        worker.start()
        await worker.wait_ready()
        answers |= await misses([worker])
    assert answers == {(503, "misplaced_keys")}
    await check_rows(workers)
    for worker in workers:
        counts = f"topic {topic} has {PARTITIONS + 2} partitions and the table was built with {PARTITIONS}"
        reasons = (await worker.document("/readyz"))[1]["reasons"]
        assert any("table one" in reason and counts in reason for reason in reasons), reasons
        for key, status in ((KEYS[0], 200), (b"absent-0", 404)):
            assert (await worker.get(f"/tables/two/{key.decode()}")).status == status


async def test_a_grown_topic_s_records_in_a_new_topic_make_misses_proof_again_as_the_reason_says(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, again, group, grown = unique("growing"), unique("produced-again"), unique("doubts"), PARTITIONS + 2
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    await produce(kafka.bootstrap_servers, topic, [(key, b"1", None) for key in KEYS])
    workers = [make_worker(kafka.bootstrap_servers, tables(table("one", topic)), group=group) for _ in range(2)]
    for worker in workers:
        worker.start()
    await all_ready(*workers)
    await add_partitions(kafka.bootstrap_servers, topic, grown)

    async def all_refused() -> bool:
        return await misses(workers) == {(503, "misplaced_keys")}

    await until(all_refused, "no worker answers 404")
    await create_topic(kafka.bootstrap_servers, again, grown)
    await produce(kafka.bootstrap_servers, again, [(key, b"1", None) for key in KEYS])
    for worker in workers:
        worker.terminate()
        assert await worker.wait_exit() == 0
        worker.tables_file.write_text(tables(table("one", again) + "    version: 2\n"))
        worker.start()
        await worker.wait_ready()

    async def proof_again() -> bool:
        return await misses(workers) == {(404, "key_not_found")}

    await until(proof_again, "every worker answers 404 again", 60)
    await check_rows(workers)
    for worker in workers:
        assert (await worker.document("/readyz"))[1]["reasons"] == []


async def test_a_deployment_of_a_new_version_after_growth_answers_no_404_while_old_workers_are_in_the_group(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group, grown = unique("rolled"), unique("doubts"), PARTITIONS + 4
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    await produce(kafka.bootstrap_servers, topic, [(key, b"1", None) for key in KEYS])
    old = make_worker(kafka.bootstrap_servers, tables(table("one", topic, standbys=0)), group=group)
    old.start()
    await old.wait_ready()
    await add_partitions(kafka.bootstrap_servers, topic, grown)
    moved = [key for key in KEYS if partition_of("murmur2", key, grown) >= PARTITIONS]
    assert moved
    await produce(kafka.bootstrap_servers, topic, [(key, b"2", partition_of("murmur2", key, grown)) for key in moved])

    new = make_worker(
        kafka.bootstrap_servers, tables(table("one", topic, standbys=0) + "    version: 2\n"), group=group
    )
    new.start()

    async def disagree() -> bool:
        _, seen = await new.document("/readyz")
        counts = f"{PARTITIONS} partitions of {topic} and this worker {grown}"
        return seen is not None and any(counts in reason for reason in seen["reasons"])

    async def old_knows() -> bool:
        _, seen = await old.document("/readyz")
        return seen is not None and any("new version" in reason for reason in seen["reasons"])

    await until(old_knows, "the old worker has noticed the growth")
    await until(disagree, "the new worker says what keeps it from answering", 60)
    for worker in (old, new):
        answers = [await worker.get(f"/tables/one/{key.decode()}") for key in (*moved, *ABSENT.values())]
        assert [(answer.headers, answer.body) for answer in answers if answer.status == 404] == []
    assert {status for status, _ in await misses([new])} == {503}

    old.terminate()
    assert await old.wait_exit() == 0

    async def served() -> bool:
        answers = [await new.get(f"/tables/one/{key.decode()}") for key in moved]
        return {(answer.status, answer.body) for answer in answers} == {(200, b"2")}

    await until(served, "the new worker serves the rows of the new partitions", 60)
    # Kafka has left the keys of before where they were, so a miss is still no proof.
    assert await misses([new]) == {(503, "misplaced_keys")}
