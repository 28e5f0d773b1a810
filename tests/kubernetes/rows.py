"""The rows that the judge reads, in Kafka, of which one after the other gets a new value all the time."""

import json
import threading
import time
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from tests.kubernetes.judge import KEYS

_SECONDS_BETWEEN = 0.02


class Rows:
    """Writes all rows once, and then new values of them until it is left."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
        self._topic = topic
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write_on)

    def __enter__(self) -> Self:
        for number in range(KEYS):
            self._write(number)
        assert not self._producer.flush(60), "rows were not acknowledged"
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        self._producer.purge()
        del self._producer  # its threads end with it

    def _write_on(self) -> None:
        number = 0
        while not self._ends.wait(_SECONDS_BETWEEN):
            self._write(number % KEYS)
            self._producer.poll(0)
            number += 1

    def _write(self, number: int) -> None:
        key = f"key-{number}"
        self._producer.produce(self._topic, key=key, value=json.dumps({"key": key, "written": time.time()}))
