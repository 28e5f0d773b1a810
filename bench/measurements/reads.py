"""Point reads: the server alone on its core, the load generator on another."""

from bench.figures import Point
from bench.load import closed_loop, row_requests
from bench.peers.peer import Peer
from bench.setting import CONNECTIONS, Setting
from bench.source import Source
from bench.usage import usage

RATE = "point GET, requests/s"
P50 = "point GET, p50 ms"
P99 = "point GET, p99 ms"
CPU = "point GET, CPU us a request"

#: Keys that are asked for, over and over.
MAX_KEYS = 100_000


def asked(source: Source) -> list[bytes]:
    """Return the requests for a source's keys, spread over all of them."""
    step = max(1, source.keys // MAX_KEYS)
    return row_requests([source.key(number) for number in range(0, source.keys, step)])


async def read(setting: Setting, peer: Peer, source: Source) -> None:
    """Read from a program that is caught up; the first loop, in which a JVM compiles, does not count."""
    requests = asked(source)
    await closed_loop(peer.port, requests, connections=CONNECTIONS, seconds=setting.read_seconds)
    before = usage(peer.pid)
    seen = await closed_loop(peer.port, requests, connections=CONNECTIONS, seconds=setting.read_seconds)
    after = usage(peer.pid)
    # The loop's own warm-up is in the process's CPU and not in its requests; in between the rate is the same.
    cpu = 1e6 * (after.cpu - before.cpu) / (seen.rate * (after.at - before.at))
    figures = setting.figures
    figures.add(RATE, seen.rate, peer.name)
    figures.add(P50, 1e3 * seen.percentile(50), peer.name)
    figures.add(P99, 1e3 * seen.percentile(99), peer.name)
    figures.add(CPU, cpu, peer.name)
    percents = [*range(99), *(99 + step / 20 for step in range(20))]
    figures.curves["reads"][peer.name] = [Point(1e3 * seen.percentile(percent), percent) for percent in percents]
    setting.say(
        f"{peer.name}: {seen.rate:,.0f} GET/s, p50 {1e3 * seen.percentile(50):.2f} ms, "
        f"p99 {1e3 * seen.percentile(99):.2f} ms, {cpu:.0f} us of CPU a request"
    )
