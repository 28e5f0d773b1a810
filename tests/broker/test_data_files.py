"""Who may read what a worker writes."""

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, produce, unique
from tests.support.worker import MakeWorker, table, tables


async def test_files_of_a_worker_are_for_its_user_alone(kafka: EmbeddedKafka, make_worker: MakeWorker) -> None:
    topic = unique("source")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    await produce(kafka.bootstrap_servers, topic, [(b"key", b"{}", None)])
    worker = make_worker(kafka.bootstrap_servers, tables(table("t", topic)), group=unique("group"))
    worker.start()
    await worker.wait_active()
    worker.terminate()
    assert await worker.wait_exit() == 0
    made = list(worker.data_dir.rglob("*"))
    assert [file for file in made if file.suffix == ".sst"]
    open_to_others = [str(each) for each in [worker.data_dir, *made] if each.stat().st_mode & 0o077]
    assert open_to_others == []
