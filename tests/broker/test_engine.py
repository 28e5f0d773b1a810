from pathlib import Path

from app.demo.broker import EmbeddedKafka
from tests.support.kafka import create_topic, produce, unique
from tests.support.worker import WorkerProcess, table, tables


async def test_a_worker(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic = unique("t")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    await produce(kafka.bootstrap_servers, topic, [(b"k", b'{"a":1}', None)])
    with WorkerProcess(tmp_path / "w", kafka.bootstrap_servers, tables(table("t", topic)), group=unique("g")) as worker:
        await worker.wait_ready()
        print((await worker.get("/tables/t/k")))
        print(await worker.tasks())
        print(await worker.metric("tablehouse_ingest_records_total", table="t"))
        worker.terminate()
        assert await worker.wait_exit() == 0
        print(worker.log_text())
