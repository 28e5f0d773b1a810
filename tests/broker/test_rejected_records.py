"""Records that cannot become rows, and keys that are not what the table says, are seen where people look."""

from aiohttp import ClientSession

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, tables


async def get(worker: WorkerProcess, path: str) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of an answer."""
    async with ClientSession() as session, session.get(worker.url + path) as answer:
        return answer.status, dict(answer.headers)


async def settled(worker: WorkerProcess, position: int) -> bool:
    """Return whether a worker has applied a position of its one partition."""
    return [task["position"] for task in await worker.tasks()] == [position]


async def test_rejected_records_are_counted_through_restarts_and_told_with_a_likely_cause(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("rejected")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    await produce(kafka.bootstrap_servers, topic, [(b"a", b"{}", 0), (b"b", b"text", 0), (b"c", b"", 0)])
    definition = tables(f"  - {{name: orders, source: {{topic: {topic}, key: string, value: json}}}}\n")
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"))
    worker.start()
    await worker.wait_ready()
    await until(lambda: settled(worker, 2), "all records are read", 60.0)
    for path, expected in (("/tables/orders/b", 404), ("/tables/orders/a", 200)):
        status, headers = await get(worker, path)
        assert (status, headers["Tablehouse-Rejected-Records"]) == (expected, "2")
    missing = (await worker.get("/tables/orders/b")).json
    assert missing["detail"].endswith("; 2 records of its partition could not become rows, see GET /tables/orders")
    _, document = await worker.document("/tables/orders")
    assert document["rejected_records"] == 2
    [partition] = document["partition_details"]
    assert partition["rejection"].startswith(f"offset 2 of {topic}[0]: undecodable_value")
    assert "a delete is a record whose value is null" in partition["rejection"]
    assert "it is text and not JSON: use string" in worker.log_text()
    worker.terminate()
    await worker.wait_exit()
    worker.start()
    await worker.wait_ready()
    status, headers = await get(worker, "/tables/orders/b")
    assert (status, headers["Tablehouse-Rejected-Records"]) == (404, "2")


async def test_a_table_of_a_wrong_format_is_told_in_readyz(kafka: EmbeddedKafka, make_worker: MakeWorker) -> None:
    values, keys = unique("values"), unique("keys")
    for topic in (values, keys):
        await create_topic(kafka.bootstrap_servers, topic, 1)
        await produce(kafka.bootstrap_servers, topic, [(b"%04d" % number, b"text", 0) for number in range(30)])
    definition = tables(
        f"  - {{name: values, source: {{topic: {values}, key: string, value: json}}}}\n",
        f"  - {{name: keys, source: {{topic: {keys}, key: int, value: string}}}}\n",
    )
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"))
    worker.start()
    await worker.wait_ready()

    async def told() -> bool:
        _, document = await worker.document("/readyz")
        reasons = "\n".join(document["reasons"])
        return "table values has no rows here, only records that could not become rows" in reasons and (
            "table keys: keys of format int look like text: use key: string" in reasons
        )

    await until(told, "both tables are told", 60.0)
    assert await worker.metric("tablehouse_partition_suspicious_keys", table="keys", partition="0") == 1
    assert await worker.metric("tablehouse_partition_rejected_records", table="values", partition="0") == 30
