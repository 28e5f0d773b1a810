"""Two workers of one group that were given different tables.yaml files."""

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, make_worker, table, tables

__all__ = ["make_worker"]


async def test_each_of_two_workers_names_the_tables_that_differ_on_the_other(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    first, second, group = unique("first"), unique("second"), unique("group")
    for topic in (first, second):
        await create_topic(kafka.bootstrap_servers, topic, 2)
    one = make_worker(kafka.bootstrap_servers, tables(table("planes", first), table("old", second)), group=group)
    two = make_worker(kafka.bootstrap_servers, tables(table("planes", first), table("new", second)), group=group)
    one.start()
    two.start()
    await all_ready(one, two)

    async def told() -> bool:
        await says(one, "table old is missing there; table new is missing here")
        await says(two, "table new is missing there; table old is missing here")
        return True

    await until(told, "both say what differs")
    for worker in (one, two):
        assert "workers of the group have different tables.yaml files" in worker.log_text()

    two.terminate()
    assert await two.wait_exit() == 0

    async def alike() -> bool:
        _, document = await one.document("/readyz?verbose")
        assert document["reasons"] == []
        return True

    await until(alike, "nothing differs any more")


async def says(worker: WorkerProcess, what: str) -> None:
    status, ready = await worker.document("/readyz?verbose")
    assert status == 200
    [reason] = [reason for reason in ready["reasons"] if "another tables.yaml" in reason]
    assert reason.endswith(f"has another tables.yaml: {what}")
    _, cluster = await worker.document("/cluster")
    differing = {member["worker"]: member["different_tables"] for member in cluster["members"]}
    [other] = [name for name, different in differing.items() if different is not None]
    assert differing[other] == what
    assert other in reason
