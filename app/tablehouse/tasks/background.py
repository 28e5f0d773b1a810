"""Background work whose failure is reported."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def start(work: Coroutine[Any, Any, None], name: str, on_fatal: Callable[[Exception], None]) -> asyncio.Task[None]:
    """Run `work` as a task that need not be awaited; any exception except cancellation goes to on_fatal."""
    task = asyncio.get_running_loop().create_task(work, name=name)

    def ended(done: asyncio.Task[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Exception):
            on_fatal(error)

    task.add_done_callback(ended)
    return task
