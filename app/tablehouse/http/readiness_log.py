"""Logs when a worker has become ready, and until then what it waits for."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from tablehouse.http.health import READY

log = structlog.get_logger("worker")

#: Seconds between two looks, and between two lines about what is waited for.
_INTERVAL, _LINES_INTERVAL = 0.25, 10.0

#: Reasons that a line has at most; `/readyz?verbose` has all.
_MAX_REASONS = 3


async def log_when_ready(document: Callable[[], Mapping[str, Any]], clock: Callable[[], float]) -> None:
    """Return once the document of `/readyz` says ready, which is logged."""
    began = told = clock()
    while (found := document())["status"] != READY:
        if clock() - told >= _LINES_INTERVAL:
            told = clock()
            log.info(
                "not ready yet",
                waiting_for=[layer["name"] for layer in found["layers"] if not layer["ok"]],
                reasons=found["reasons"][:_MAX_REASONS],
                seconds=round(clock() - began),
            )
        await asyncio.sleep(_INTERVAL)
    log.info("ready", seconds=round(clock() - began, 1))
