"""Time the parts and print a table: `python -m bench.micro`."""

import uvloop

from bench.micro import avro, formats, server, store
from bench.micro.timing import Timings
from tablehouse.logs import configure_logging


async def _measure() -> None:
    configure_logging("json", "info", "bench")  # as a worker does by default, so no line is written for a read
    print("| part | us, or as named |\n|---|---|")  # noqa: T201
    timings = Timings()
    formats.measure(timings)
    avro.measure(timings)
    await store.measure(timings)
    await server.measure(timings)


if __name__ == "__main__":
    uvloop.run(_measure())
