"""Removes secrets, keys and values from texts for logs and messages."""

import logging
import re
import traceback
from collections.abc import Iterator
from types import TracebackType

from tablehouse.errors import TablehouseError

#: Exceptions whose messages are about code, files and hosts, and Tablehouse's own, whose messages have no data. Others
#: may quote their input: a key, a row, a password.
_SAFE = (
    TablehouseError,
    OSError,
    AttributeError,
    NameError,
    ImportError,
    TypeError,
    AssertionError,
    NotImplementedError,
)

_QUOTED = re.compile(r"""b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'""", re.DOTALL)
_USER_INFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)

_MAX_LENGTH = 1000


def without_user_info(text: str) -> str:
    """Return a URL, or text given as one, without any user and password."""
    return _USER_INFO.sub(r"\1***@", text)


def in_words(error: BaseException) -> str:
    """Return the class and the message of an exception, without quoted text that may be data."""
    if isinstance(error, UnicodeError):
        # Its repr() includes the bytes.
        return f"{type(error).__name__}: {getattr(error, 'reason', 'not text')}"
    message = str(error)
    if not isinstance(error, _SAFE):
        message = _QUOTED.sub("'...'", message)
    if len(message) > _MAX_LENGTH:
        message = message[:_MAX_LENGTH] + "..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def traceback_in_words(
    exc_info: tuple[type[BaseException] | None, BaseException | None, TracebackType | None],
) -> str:
    """Return an exception and its causes as Python prints them, each with the message of in_words()."""
    error = exc_info[1]
    return "".join(() if error is None else _chain(error, set())).rstrip("\n")


def _chain(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _chain(before, seen)
        how = "was the direct cause of" if error.__cause__ is not None else "was being handled when there was"
        yield f"\nThe above exception {how} the following exception:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{in_words(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for number, part in enumerate(error.exceptions, 1):
            if id(part) not in seen:
                yield f"\nException {number} of the group:\n\n"
                yield from _chain(part, seen)


class Masked(logging.Filter):
    """Removes bytes, and text quoted by exceptions, from the log lines of libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask a record; never drops one."""
        if isinstance(record.args, tuple):
            record.args = tuple(_masked(argument) for argument in record.args)
        if record.name == "asyncio":
            # The rest of the line names callbacks with their arguments.
            record.msg, record.args = record.getMessage().partition("\n")[0].partition("(")[0], None
        return True


def _masked(argument: object) -> object:
    if isinstance(argument, BaseException):
        return in_words(argument)
    if isinstance(argument, bytes | bytearray | memoryview):
        return f"{len(argument)} bytes"
    return argument
