import asyncio

from app.turns import PIECES_IN_A_ROW, Turns


async def test_one_of_all_that_wait_has_its_turn_in_a_round_and_goes_on_for_some_while_the_next_wait() -> None:
    turns, done = Turns(), []
    rounds = 0

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    async def work(name: str) -> None:
        for _ in range(PIECES_IN_A_ROW + 2):
            await turns.wait()
            done.append((name, rounds))

    counting = asyncio.create_task(count_rounds())
    await asyncio.gather(*(work(name) for name in "abc"))
    counting.cancel()
    row = PIECES_IN_A_ROW
    assert [name for name, _ in done] == [*"a" * row, *"b" * row, *"c" * row, *"aabbcc"]
    assert len({at for _, at in done}) == len(done)


async def test_one_that_is_cancelled_while_it_waits_costs_the_others_nothing() -> None:
    turns = Turns()
    waiting = [asyncio.create_task(turns.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 5)
    await asyncio.wait_for(turns.wait(), 5)
    assert [one.cancelled() for one in waiting] == [True, True, False]
