import asyncio

from tablehouse.tasks import background


async def test_what_the_work_raises_is_told_and_being_cancelled_is_not() -> None:
    told: list[Exception] = []
    broken = ValueError("broken")

    async def fail() -> None:
        raise broken

    failing = background.start(fail(), "failing", told.append)
    cancelled = background.start(asyncio.Event().wait(), "waiting", told.append)  # type: ignore[arg-type]
    cancelled.cancel()
    await asyncio.wait({failing, cancelled})
    await asyncio.sleep(0)
    assert told == [broken]
    assert failing.get_name() == "failing"
