"""Waiting for something to become true: by asking again, up to a deadline, and never for a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

_PAUSE = 0.05  # seconds between two questions

#: How much longer a machine with other work may take than what a test allows for.
_TIMEOUT_FACTOR = 4


async def until(ask: Callable[[], Awaitable[Found | None]], what: str, seconds: float = 30.0) -> Found:
    """Ask until the answer is neither None nor False, and return it; fail with `what` when the time runs out.

    `seconds` are those of a quiet machine; on a loaded one, four times as many pass before it fails.

    An AssertionError that `ask` raises counts as "not yet", and its text ends up in the failure.
    """
    seconds *= _TIMEOUT_FACTOR
    deadline = time.monotonic() + seconds
    while True:
        reason = ""
        try:
            answer = await ask()
        except AssertionError as error:
            answer, reason = None, f": {error}"
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}{reason}")
        await asyncio.sleep(_PAUSE)


def wait_until(ask: Callable[[], Found | None], what: str, seconds: float = 30.0) -> Found:
    """Ask as `until` does, where there is no event loop that has other things to do."""
    deadline = time.monotonic() + seconds * _TIMEOUT_FACTOR
    while True:
        reason = ""
        try:
            answer = ask()
        except AssertionError as error:
            answer, reason = None, f": {error}"
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * _TIMEOUT_FACTOR:g} s: {what}{reason}")
        time.sleep(_PAUSE)
