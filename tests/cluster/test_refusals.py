"""What a worker cannot start with: it ends with exit code 2 and says what would be right; a broker it waits for."""

from pathlib import Path

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Checked, check_equal
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, table, tables


async def refusal(worker: WorkerProcess) -> str:
    """Start a worker that cannot work, and return what it says; logs of its earlier processes are left out."""
    before = len(worker.log_text())
    worker.start()
    assert await worker.wait_exit() == 2, worker.log_end()
    said = worker.log_text()[before:]
    assert not any(word in said for word in ("Traceback", "rash", "NoneType")), said
    return said


async def test_a_data_directory_in_use_is_refused_naming_the_process_that_has_it(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("one"), unique("refusals")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    definition = tables(table("one", topic))
    first = make_worker(kafka.bootstrap_servers, definition, group=group)
    first.start()
    await first.wait_ready()
    second = make_worker(kafka.bootstrap_servers, definition, group=group, data_dir=str(first.data_dir))
    said = await refusal(second)
    assert f"{first.data_dir} is in use by process {first.pid}" in said
    assert first.exit_code is None


async def test_a_topic_that_is_not_there_is_refused_by_name(kafka: EmbeddedKafka, make_worker: MakeWorker) -> None:
    topic = unique("absent")
    said = await refusal(make_worker(kafka.bootstrap_servers, tables(table("one", topic)), group=unique("refusals")))
    assert f"there is no topic {topic}" in said
    assert "source.topic" in said


async def test_a_changed_definition_of_a_table_with_rows_is_refused_naming_the_field(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("changing")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    await produce(kafka.bootstrap_servers, topic, [(b"k%d" % n, b"1", None) for n in range(20)])
    worker = make_worker(kafka.bootstrap_servers, tables(table("one", topic)), group=unique("refusals"))
    worker.start()
    await worker.wait_ready()
    worker.terminate()
    assert await worker.wait_exit() == 0
    worker.tables_file.write_text(tables(table("one", topic, value="string")))
    said = await refusal(worker)
    assert "table one" in said
    assert "value" in said
    assert "json" in said
    assert "string" in said
    # Put back, it is as it was.
    worker.tables_file.write_text(tables(table("one", topic)))
    worker.start()
    await worker.wait_ready()
    assert (await worker.get("/tables/one/k1")).body == b"1"


async def test_a_port_in_use_is_refused_naming_the_setting(kafka: EmbeddedKafka, make_worker: MakeWorker) -> None:
    topic, group = unique("one"), unique("refusals")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    definition = tables(table("one", topic))
    first = make_worker(kafka.bootstrap_servers, definition, group=group)
    first.start()
    await first.wait_ready()
    for setting in ("http_port", "internal_port"):
        taken = {setting: first.settings[setting]}
        said = await refusal(make_worker(kafka.bootstrap_servers, definition, group=group, **taken))
        assert f"port {first.settings[setting]} " in said
        assert f"TABLEHOUSE_{setting.upper()}" in said
    assert first.exit_code is None


async def test_without_a_broker_a_worker_is_live_and_not_ready_and_says_so_until_the_broker_is_there(
    tmp_path: Path, make_worker: MakeWorker
) -> None:
    kafka = EmbeddedKafka(tmp_path / "kafka")
    bootstrap, group, checked = kafka.bootstrap_servers, unique("waiting"), Checked("one", unique("one"), 2)
    with kafka:
        await create_topic(bootstrap, checked.topic, 2)
        await produce(bootstrap, checked.topic, [(b"k%d" % n, b"%d" % n, None) for n in range(50)])
    worker = make_worker(bootstrap, tables(checked.entry()), group=group)
    worker.start()

    async def waits() -> bool:
        return "no broker reachable" in worker.log_text()

    await until(waits, "the log says that there is no broker")
    assert (await worker.document("/livez"))[0] == 200
    status, seen = await worker.document("/readyz?verbose")
    assert status == 503
    assert bootstrap in seen["reasons"][0]
    assert await worker.metric("tablehouse_disk_free_bytes") > 0
    answer = await worker.get("/tables/one/k1")
    assert (answer.status, answer.json["code"]) == (503, "partition_unassigned")
    with kafka:
        await worker.wait_ready()
        await check_equal(bootstrap, group, [worker], [checked])
        worker.terminate()
        assert await worker.wait_exit() == 0
