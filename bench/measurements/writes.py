"""Writes of one row at a time through an idle worker: until the topic has it, and until it can be read."""

from bench.load import closed_loop
from bench.measurements.batch import TIMEOUT_SECONDS
from bench.peers.peer import running, until_caught_up
from bench.setting import Setting

ACKNOWLEDGED = "PUT, idle, p50 ms"
VISIBLE = "PUT?wait=visible, idle, p50 ms"
VISIBLE_P99 = "PUT?wait=visible, idle, p99 ms"

_PARTITIONS = 3
_KEYS = 1_000
_VALUE = b'{"amount":17.25,"active":true}'


async def measure(setting: Setting) -> None:
    """One connection, one write at a time, on a table of three partitions."""
    source = setting.sized(20_000, 10_000, _PARTITIONS)
    await setting.topics.provide(source)
    worker = setting.worker(source.topic, writable=True)
    async with running(worker):
        await until_caught_up(worker, source.records, TIMEOUT_SECONDS)
        for query, figures in ((b"", {50: ACKNOWLEDGED}), (b"?wait=visible", {50: VISIBLE, 99: VISIBLE_P99})):
            requests = [_put(source.key(number), query) for number in range(min(_KEYS, source.keys))]
            seen = await closed_loop(worker.port, requests, connections=1, seconds=setting.read_seconds)
            for percent, name in figures.items():
                setting.figures.add(name, 1e3 * seen.percentile(percent))
    measured = setting.figures
    setting.say(
        f"idle PUT: acknowledged {measured.median(ACKNOWLEDGED):.2f} ms, visible {measured.median(VISIBLE):.2f} ms, "
        f"p50; visible {measured.median(VISIBLE_P99):.2f} ms, p99"
    )


def _put(key: bytes, query: bytes) -> bytes:
    head = b"PUT /tables/table/%b%b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n" % (key, query)
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(_VALUE), _VALUE)
