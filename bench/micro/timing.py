"""Timing of small things: the best of several runs, which other load on the machine disturbs least."""

import time
from collections.abc import Awaitable, Callable

_RUNS = 5


class Timings:
    """Microseconds an operation, printed as they come."""

    def sync(self, name: str, operations: int, run: Callable[[], object]) -> None:
        """Time a call that does so many operations."""
        best = float("inf")
        for _ in range(_RUNS):
            begin = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - begin)
        self.say(name, 1e6 * best / operations)

    async def awaited(self, name: str, operations: int, run: Callable[[], Awaitable[object]]) -> None:
        """Time a coroutine that does so many operations."""
        best = float("inf")
        for _ in range(_RUNS):
            begin = time.perf_counter()
            await run()
            best = min(best, time.perf_counter() - begin)
        self.say(name, 1e6 * best / operations)

    def say(self, name: str, figure: float) -> None:
        """Print a figure."""
        print(f"| {name} | {figure:.2f} |", flush=True)  # noqa: T201
