"""How log lines of the worker and of libraries are written: their format, their level, and what they leave out."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, NamedTuple

import structlog

from tablehouse.errors import SetupError
from tablehouse.masking import Masked, traceback_in_words

LogFormat = Literal["json", "console"]

#: Seconds in which a library's line is written once. While no broker is reachable, clients of Kafka repeat theirs 150
#: times a second. As long as it goes on, each interval is twice the one before, up to the longest.
REPEAT_SECONDS, MAX_REPEAT_SECONDS = 10.0, 640.0

#: Different things that are remembered.
_REMEMBERED = 1000


class _Said(NamedTuple):
    """When a thing was written and when it was last said, how long it is kept back in between, and how often it was."""

    written_at: float
    seen_at: float
    interval: float
    kept_back: int


_NEVER = _Said(float("-inf"), float("-inf"), 0.0, 0)


class Repeats(logging.Filter):
    """Suppresses lines that were written lately, whatever their arguments, and counts them in the next such line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], _Said] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written."""
        if record.levelno <= logging.DEBUG:
            return True
        what, now = (record.name, str(record.msg)), self._clock()
        said = self._said.get(what, _NEVER)
        if now - said.written_at < said.interval:
            self._said[what] = said._replace(seen_at=now, kept_back=said.kept_back + 1)
            return False
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        goes_on = said.kept_back and now - said.seen_at < MAX_REPEAT_SECONDS
        interval = min(2 * said.interval, MAX_REPEAT_SECONDS) if goes_on else REPEAT_SECONDS
        self._said[what] = _Said(now, now, interval, 0)
        if said.kept_back:
            record.msg, record.args = f"{record.getMessage()} ({said.kept_back} similar lines suppressed)", None
        return True


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """Return whether a library's line is about something other than a SetupError, whose message ends the log."""
    return not any(isinstance(argument, SetupError) for argument in record.args or ())


def configure_logging(
    log_format: LogFormat,
    level: str,
    worker: str,
    *,
    quiet: Iterable[str] = (),
    is_expected: Callable[[logging.LogRecord], bool] = lambda _record: False,
) -> None:
    """Send structlog's and the libraries' lines to stderr, in one format, each with the worker's id.

    level is a name of the standard library (`info`, `WARNING`). Libraries say nothing below info at any level: their
    lines for debugging have whole requests, with passwords and records. Those that quiet names say nothing below
    warning. Lines of libraries for which is_expected() holds are left out. Calling it again replaces what was set up
    before.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    json = log_format == "json"

    def add_worker(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        event["worker"] = worker
        return event

    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", key="ts"),
        add_worker,
        # In the format for the console too: its own tracebacks have every local variable.
        structlog.processors.ExceptionRenderer(traceback_in_words),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="ts")
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(max(number, logging.INFO))
    handler.addFilter(_is_no_refusal)
    handler.addFilter(Masked())
    handler.addFilter(lambda record: not is_expected(record))
    handler.addFilter(Repeats())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        ),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO))
    for library in quiet:
        logging.getLogger(library).setLevel(max(number, logging.WARNING))


@contextmanager
def warnings_to_stderr(untold: Collection[str] = ()) -> Iterator[None]:
    """Have a command log nothing but warnings, and those to stderr; not the events that it tells in its own words."""

    def without_untold(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        if event["event"] in untold:
            raise structlog.DropEvent
        return event

    before = structlog.get_config()
    structlog.configure(
        processors=[without_untold, structlog.stdlib.add_log_level, structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def log_uncaught() -> None:
    """Have exceptions that end the process, or a thread, go through the log from here on."""
    log = structlog.get_logger("uncaught")

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit and args.exc_value is not None:
            log.error("a thread has ended", exc_info=args.exc_value)

    def ignored(args: "sys.UnraisableHookArgs") -> None:
        log.error("an exception could not be raised", exc_info=args.exc_value)

    def of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        del kind, trace
        log.error("the process ends", exc_info=error)

    threading.excepthook, sys.unraisablehook, sys.excepthook = of_thread, ignored, of_process
