import fcntl
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tablehouse.errors import SetupError
from tablehouse.testing import jars as kafka_jars
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, produce, unique


async def values_of(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """Read the first `count` values of partition 0."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_what_is_produced_can_be_consumed(kafka: EmbeddedKafka) -> None:
    topic = unique("numbers")
    await create_topic(kafka.bootstrap_servers, topic, 1)

    offsets = await produce(kafka.bootstrap_servers, topic, [(b"k", b"one", None), (b"k", b"two", 0)])

    assert offsets == [(0, 0), (0, 1)]
    assert await values_of(kafka.bootstrap_servers, topic, 2) == [b"one", b"two"]


async def test_a_killed_broker_comes_back_on_the_same_port_with_its_data(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as broker:
        before = broker.bootstrap_servers
        await create_topic(before, "kept", 1)
        await produce(before, "kept", [(b"k", b"written before the kill", None)])
        broker.kill()
        broker.restart()

        assert broker.bootstrap_servers == before
        assert await values_of(before, "kept", 1) == [b"written before the kill"]


def test_a_broker_that_does_not_run_cannot_be_killed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"broker 0 of 127\.0\.0\.1:[0-9]+ is not running"):
        EmbeddedKafka(tmp_path).kill()


async def test_three_brokers_know_each_other_when_start_returns(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path, brokers=3) as cluster:
        await create_topic(cluster.bootstrap_servers, "copied", 1, {"min.insync.replicas": "3"}, 3)
        await produce(cluster.bootstrap_servers, "copied", [(b"k", b"on three", None)])

        assert await values_of(cluster.bootstrap_servers, "copied", 1) == [b"on three"]


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} of 127.0.0.1 is in use"):
            EmbeddedKafka(tmp_path, port=port).start()


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path):
        pass
    properties = tmp_path / "broker-0" / "data" / "meta.properties"
    properties.write_text("version=1\n")

    with pytest.raises(SetupError, match=r"(?s)ended while it was starting.*broker\.log.*No readable meta"):
        EmbeddedKafka(tmp_path).start()


def test_without_a_network_the_missing_files_and_their_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nothing listens

    with pytest.raises(SetupError) as refusal:
        kafka_jars.kafka_class_path()

    jars = kafka_jars.kafka_jars()
    message = str(refusal.value)
    assert f"{len(jars)} of {len(jars)} files are missing in {tmp_path}" in message
    assert all(jar.file_name in message for jar in jars)
    assert not [path for path in tmp_path.rglob("*") if path.name != ".lock" and path.is_file()]


def test_a_second_process_waits_for_the_download_of_the_first_and_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [Path(path) for path in kafka_jars.kafka_class_path().split(os.pathsep)]
    monkeypatch.setenv("DEMO_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a download of its own would fail
    folder = tmp_path / f"kafka-{kafka_jars.KAFKA_VERSION}"
    folder.mkdir()
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)

    with ThreadPoolExecutor(1) as second:
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            class_path = second.submit(kafka_jars.kafka_class_path)
            deadline = time.monotonic() + 10
            while "waiting" not in said.getvalue():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for jar in whole:
                (folder / jar.name).symlink_to(jar)

        assert class_path.result(10).split(os.pathsep) == [str(folder / jar.name) for jar in whole]


def test_the_broker_dies_with_a_killed_parent_whichever_thread_started_it(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, threading
        from pathlib import Path
        from tablehouse.testing.kafka import EmbeddedKafka
        broker = EmbeddedKafka(Path(sys.argv[1]))
        starter = threading.Thread(target=broker.start)
        starter.start()
        starter.join()
        print(broker._nodes[0].process.pid, flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        broker_pid = int(parent.stdout.readline())
        os.kill(broker_pid, 0)  # it outlived the thread that started it
        parent.send_signal(signal.SIGKILL)
        parent.wait()

    deadline = time.monotonic() + 10
    while is_running(broker_pid):
        assert time.monotonic() < deadline, f"broker {broker_pid} still runs"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Say whether a process runs; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
