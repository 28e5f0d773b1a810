"""Documents that are made for all who ask at the same time, and kept for a moment."""

import asyncio

from tablehouse.http.briefly import KEPT_SECONDS, Briefly
from tests.support.cluster_fakes import FakeClock


class Making:
    """Makes the documents 1, 2, 3 ..., each of which takes the processor as long as the test says."""

    def __init__(self, costs: float) -> None:
        self.costs = costs
        self.made = 0
        self.clock = FakeClock()
        self.spent = 0.0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.document = Briefly(self._make, self.clock, lambda: self.spent)

    async def _make(self) -> int:
        self.made += 1
        await self.may_end.wait()
        self.spent += self.costs
        return self.made


async def test_a_document_that_costs_little_is_made_each_time() -> None:
    making = Making(0.001)
    assert [await making.document.get() for _ in range(3)] == [1, 2, 3]


async def test_a_document_that_costs_much_is_kept_for_a_second_at_most() -> None:
    making = Making(0.2)
    assert [await making.document.get() for _ in range(3)] == [1, 1, 1]
    making.clock.now += KEPT_SECONDS - 0.01
    assert await making.document.get() == 1
    making.clock.now += 0.02
    assert await making.document.get() == 2


async def test_all_who_ask_while_it_is_made_get_the_same_though_the_first_goes_away() -> None:
    making = Making(0.001)
    making.may_end.clear()
    asking = [asyncio.create_task(making.document.get()) for _ in range(8)]
    await asyncio.sleep(0)
    asking[0].cancel()
    making.may_end.set()
    assert await asyncio.gather(*asking[1:]) == [1] * 7


async def test_a_failure_is_told_to_all_who_wait_and_the_next_makes_it_again() -> None:
    calls = 0

    async def make() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("not now")
        return "made"

    document = Briefly(make)
    for failed in await asyncio.gather(document.get(), document.get(), return_exceptions=True):
        assert isinstance(failed, ValueError)
    assert await document.get() == "made"
