"""A read that another worker answers, over one that the asked worker answers itself, on an idle group of two."""

from collections.abc import Sequence

from bench.load import closed_loop, row_requests
from bench.measurements.sharing import keys_by_owner, until_shared
from bench.peers.peer import running
from bench.peers.tablehouse import Tablehouse
from bench.setting import Setting
from bench.source import Source

LOCAL = "idle GET, local, p50 ms"
FORWARDED = "idle GET, forwarded, p50 ms"

#: Keys that are looked up, half of which each of two workers owns.
KEYS = 400
#: So that two workers can share them evenly.
PARTITIONS = 4
_LOOPS = 3


async def measure(setting: Setting) -> None:
    """One connection, one request at a time, local and forwarded in turns."""
    produced = await setting.topics.provide(setting.sized(200_000, 100_000, PARTITIONS))
    # The second to join has nothing yet: it restores its share as a standby, and then asks for it.
    asked, other = setting.workers(produced.source.topic, 2, takeover_interval="1s")
    async with running(asked), running(other):
        await until_shared((asked, other), PARTITIONS)
        local, forwarded = await divide(asked, produced.source)
        for _ in range(_LOOPS):
            for name, keys in ((LOCAL, local), (FORWARDED, forwarded)):
                seen = await closed_loop(
                    asked.port, row_requests(keys), connections=1, seconds=setting.read_seconds / 2
                )
                setting.figures.add(name, 1e3 * seen.percentile(50))
    figures = setting.figures
    setting.say(f"idle GET: local {figures.median(LOCAL):.2f} ms, forwarded {figures.median(FORWARDED):.2f} ms, p50")


async def divide(asked: Tablehouse, source: Source) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Return keys that the asked one of two workers owns, and keys that the other owns."""
    owned = await keys_by_owner(asked, map(source.key, range(min(KEYS, source.keys))))
    return owned[asked.internal_url], [key for url, keys in owned.items() if url != asked.internal_url for key in keys]
