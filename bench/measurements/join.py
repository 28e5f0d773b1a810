"""A fourth worker with an empty disk joins three that are read and updated, and takes over its part."""

import asyncio
import time
from contextlib import AsyncExitStack

from bench.balancer import Balanced, Servers
from bench.measurements.sharing import settled, until_shared
from bench.peers.peer import running
from bench.setting import Setting
from bench.updates import Updates, requests_for

ASKED = "a fourth worker joins: GETs for existing keys"
NO_ROW = "a fourth worker joins: GETs for existing keys without a row, %"
FALSE = "a fourth worker joins: false answers"
NO_PROOF = "a fourth worker joins: GETs for keys that do not exist with a 503, %"
SHARED = "a fourth worker joins: s from its start until four share evenly"
P99 = "a fourth worker joins: GETs for existing keys, p99 ms"

_ROWS = 200_000
#: So that three workers and four can share them evenly.
PARTITIONS = 12
#: A second, of all workers together.
_RATE, _MISS_RATE, _UPDATE_RATE = 500, 50, 200
#: Every so many keys are asked for.
_STEP = 10
_ABSENT = 1000
#: Seconds of load before the fourth is started, and after four share evenly.
_MARGIN = 2.0


async def measure(setting: Setting) -> None:
    """Once: most of it is a start, a restore and two rebalances."""
    produced = await setting.topics.provide(setting.sized(_ROWS, _ROWS, PARTITIONS, updated_by="join"))
    updates = Updates(produced.source, _STEP)
    *group, fourth = workers = setting.workers(produced.source.topic, 4, takeover_interval="1s")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(settled(group, PARTITIONS))
        await stack.enter_async_context(updates.produced(setting.bootstrap, _UPDATE_RATE))
        servers = await stack.enter_async_context(Servers([worker.port for worker in workers]))
        absent = requests_for([b"nobody-%07d" % number for number in range(_ABSENT)])
        async with (
            Balanced(servers, updates.requests(), _RATE, updates.is_false) as existing,
            Balanced(servers, absent, _MISS_RATE, lambda _key, status, _body: status == 200) as missing,  # noqa: PLR2004
        ):
            await asyncio.sleep(_MARGIN)
            began = time.monotonic()
            await stack.enter_async_context(running(fourth))
            shared = await until_shared(workers, PARTITIONS) - began
            await asyncio.sleep(_MARGIN)
    figures = setting.figures
    figures.add(ASKED, existing.answers.asked)
    figures.add(NO_ROW, existing.answers.share_without(200))
    figures.add(FALSE, existing.answers.false + missing.answers.false)
    figures.add(NO_PROOF, missing.answers.share_of(503))
    figures.add(SHARED, shared)
    figures.add(P99, existing.answers.percentile(99))
    setting.say(f"four share evenly {shared:.1f} s after the start of the fourth")
    setting.say(f"keys that exist: {existing.answers}")
    setting.say(f"keys that do not: {missing.answers}")
