"""An event loop on virtual time, and processes on it that can be stopped and resumed.

Time jumps to the next timer when nothing is left to run, so hours pass in milliseconds and the same seed gives the same
history. Callbacks in the context of a stopped process are parked, as by SIGSTOP: the process notices nothing until it
is resumed, and then everything at once.

A call in a thread happens atomically at some later moment, even if its caller no longer waits. asyncio.sleep(0) takes
time like everything else.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any


class Process:
    """The simulated process of a worker's coroutines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = False
        self.parked: list[tuple[Callable[[], None], Context]] = []

    def stop(self) -> None:
        """Stop running its callbacks."""
        self.stopped = True

    def go_on(self) -> None:
        """Run the parked callbacks in order."""
        self.stopped = False
        parked, self.parked = self.parked, []
        for run, context in parked:
            asyncio.get_running_loop().call_soon(run, context=context)

    def run(self, action: Callable[[], None]) -> None:
        """Run an action in the context of the process, now."""
        context = copy_context()
        context.run(PROCESS.set, self)
        context.run(action)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine, and everything that it starts, in this process."""
        context = copy_context()
        context.run(PROCESS.set, self)
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            loop.processes.append(self)
        return loop.create_task(coroutine, context=context)


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)

_SLEEP = asyncio.sleep


async def sleep(delay: float, result: Any = None) -> Any:
    """Replace asyncio.sleep() while a simulation runs."""
    loop = asyncio.get_running_loop()
    if delay <= 0 and isinstance(loop, VirtualLoop) and loop.hop is not None:
        await loop.hop("turn")
        return result
    return await _SLEEP(delay, result)


class _NoFiles(selectors.SelectSelector):
    """Waits by moving the clock."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let `timeout` seconds pass; nothing else can happen in the meantime."""
        if timeout is None:
            raise AssertionError("deadlock: everything waits, and no timer is set")
        self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; see the module's docstring."""

    def __init__(self) -> None:
        self.now = 0.0
        self.processes: list[Process] = []
        #: Awaited before and after each call in a thread, with its name, and at every asyncio.sleep(0).
        self.hop: Callable[[str], Awaitable[None]] | None = None
        self._threads: set[asyncio.Task[None]] = set()
        selector = _NoFiles()
        selector.loop = self
        super().__init__(selector)
        # Coroutines of a crashed worker are discarded.
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run a function in a simulated thread."""
        if executor is None:
            # From asyncio.to_thread() comes the run() of a context, with the function as its first argument.
            called = func.args[0] if isinstance(func, partial) else func
            point = f"store.{called.__name__.strip('_')}"
        else:
            point = "thread"
        answer = self.create_future()

        async def run() -> None:
            if self.hop is not None:
                await self.hop(point)
            result, failure = None, None
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - the caller's
                failure = error
            if self.hop is not None:
                await self.hop(f"{point} done")
            if answer.done():
                return
            if failure is None:
                answer.set_result(result)
            else:
                answer.set_exception(failure)

        thread = self.create_task(run())
        self._threads.add(thread)
        thread.add_done_callback(self._threads.discard)
        return answer

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Park the callback instead of running it while its process is stopped."""
        context = context or copy_context()
        gated = _gated(callback, args, context)
        handle = super().call_soon(gated, context=context)
        gated.handle = handle
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Park the callback instead of running it while its process is stopped."""
        context = context or copy_context()
        gated = _gated(callback, args, context)
        handle = super().call_at(when, gated, context=context)
        gated.handle = handle
        return handle


class _gated:  # noqa: N801 - a function with a memory
    """A callback that waits while its process is stopped; its handle can be cancelled while it waits."""

    __slots__ = ("_args", "_callback", "_context", "_process", "handle")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self._callback, self._args, self._context = callback, args, context
        self._process = context.get(PROCESS)
        self.handle: asyncio.Handle | None = None

    def __call__(self) -> None:
        if self.handle is not None and self.handle.cancelled():
            return
        process = self._process
        if process is not None and process.stopped:
            process.parked.append((self, self._context))
        else:
            self._callback(*self._args)


def run_virtual(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a new loop, and clean up the loop afterwards."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        _clear(loop)
        loop.close()


def _clear(loop: VirtualLoop) -> None:
    async def cancel_all() -> None:
        me = asyncio.current_task()
        while left := [task for task in asyncio.all_tasks() if task is not me]:
            for task in left:
                task.cancel()
            for process in loop.processes:
                process.go_on()
            await asyncio.wait(left, timeout=1)

    loop.run_until_complete(cancel_all())
