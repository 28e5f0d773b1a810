"""Runs a worker's services under Faust's Worker, until a signal or an error ends them."""

import asyncio
import faulthandler
import gc
import signal
from typing import Protocol

import faust
import structlog
from mode import Service

from tablehouse.errors import SetupError
from tablehouse.kafka.faust_app import TablehouseApp

log = structlog.get_logger(__name__)

#: Seconds for requests in flight to finish after the worker was told to stop.
_DRAIN_SECONDS = 2.0

#: Seconds that dumping the stacks of a hanging process may take.
_DUMP_SECONDS = 1.0


class Engine(Protocol):
    """Takes part in the group; a mode Service."""

    app: TablehouseApp

    def drain(self) -> None:
        """Record that the worker is stopping."""


class Listeners(Protocol):
    """The HTTP server, which this package does not import."""

    async def start(self) -> None:
        """Serve."""

    async def log_when_ready(self) -> None:
        """Log when the worker is ready, and return."""

    async def drain(self, seconds: float) -> None:
        """Become unready, and wait for requests in flight."""

    async def stop(self, seconds: float) -> None:
        """Close."""


class _ListenersService(Service):  # type: ignore[misc]  # mode's Service has untyped parts
    """Starts before everything else, so that the worker is live while it waits for a broker, and stops last."""

    def __init__(self, listeners: Listeners) -> None:
        super().__init__()
        self._listeners = listeners

    async def on_start(self) -> None:
        await self._listeners.start()
        self.add_future(self._listeners.log_when_ready())

    async def on_stop(self) -> None:
        await self._listeners.stop(_DRAIN_SECONDS)


class _Worker(faust.Worker):  # type: ignore[misc]  # faust's Worker has untyped parts
    """Faust's Worker with Tablehouse's logging, a drain before the stop, and a deadline for it."""

    def __init__(self, engine: Engine, listeners: Listeners, shutdown_timeout: float) -> None:
        super().__init__(
            engine.app,
            _ListenersService(listeners),
            engine,
            quiet=True,
            override_logging=False,
            redirect_stdouts=False,
            loop=asyncio.get_event_loop(),
        )
        self.spinner = None
        self._engine = engine
        self._listeners = listeners
        self._shutdown_timeout = shutdown_timeout

    def _install_signal_handlers_unix(self) -> None:
        """Stop on SIGTERM, SIGINT, and SIGHUP unless SIGHUP was ignored at the start, as under nohup.

        Faust's handlers of SIGUSR1 and SIGUSR2, which print every local variable and start a debugger, are disabled.
        """
        stopping = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            stopping.append(signal.SIGHUP)
        for number in stopping:
            self.loop.add_signal_handler(number, self._schedule_shutdown, number)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    async def _stop_on_signal(self, signal: signal.Signals) -> None:
        log.info("stopping", signal=signal.name, deadline_seconds=self._shutdown_timeout)
        _end_after(self._shutdown_timeout)
        self._engine.drain()
        await self._listeners.drain(_DRAIN_SECONDS)
        await super()._stop_on_signal(signal)

    def _setproctitle(self, info: str, *, ident: str = "tablehouse") -> None:
        """Do nothing: the process keeps its name."""


def _end_after(seconds: float) -> None:
    """End the process after a deadline even if it hangs, and dump its stacks; unflushed data is in the changelog.

    This is not a Python thread, since a library call may hang while holding the GIL. The alarm signal is needed as
    well, since writing the dump may block on a pipe without a reader.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + _DUMP_SECONDS)


def _tune_garbage_collector() -> None:
    """Exclude long-lived objects from garbage collection, and run it less often than once per batch.

    Records create no reference cycles. With the default thresholds the collector took 17 % of an ingesting worker's CPU
    (bench/README.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def run(engine: Engine, listeners: Listeners, shutdown_timeout: float) -> int:
    """Run until told to stop, on the current event loop, and return the exit code.

    Raises SetupError if the worker cannot run as configured: at the start, or later if only its data shows it.
    """
    worker = _Worker(engine, listeners, shutdown_timeout)
    _tune_garbage_collector()
    loop = asyncio.get_event_loop()
    failure: BaseException | None = None
    worker._starting_fut = asyncio.ensure_future(worker.start(), loop=loop)
    try:
        loop.run_until_complete(worker._starting_fut)
    except asyncio.CancelledError:
        pass
    except Exception as error:  # noqa: BLE001 - the services are stopped and the error is reported below
        failure = error
    failure = failure or worker.crash_reason
    if failure is not None:
        _end_after(shutdown_timeout)
        # Faust would log it and raise it again.
        worker.crash_reason = None
    try:
        worker.stop_and_shutdown()
    except Exception as error:  # noqa: BLE001 - Faust raises the cause of a crash during the stop
        failure = failure or error
    if isinstance(failure, SetupError):
        raise failure
    if failure is not None:
        log.error("the worker crashed", exc_info=failure)
        return 1
    log.info("stopped")
    return 0
