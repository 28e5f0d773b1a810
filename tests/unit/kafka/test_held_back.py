"""What stands beyond the end of what can be read, and is read there once."""

from types import SimpleNamespace
from typing import Any

from tablehouse.kafka.held_back import HeldBack
from tablehouse.model import TopicPartition
from tests.support.batches import batch_of

SOURCE = TopicPartition("topic", 0)


class Leader:
    """Implements as much of a client as reads a log; it answers one batch at a time, as a fetch may."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.asked: list[int] = []

    async def send(self, _node: int, request: Any) -> Any:
        """Answer a fetch request."""
        [(topic, [(partition, offset, _)])] = request.topics
        self.asked.append(offset)
        data = self.log[offset] if offset < len(self.log) else b""
        return SimpleNamespace(topics=[(topic, [(partition, 0, len(self.log), 0, None, data)])])


def plain(offset: int) -> bytes:
    return batch_of((0, b"key", b"value", ()), base=offset)


def of_a_transaction(offset: int) -> bytes:
    return batch_of((0, b"key", b"value", ()), base=offset, producer=7, transactional=True)


async def twice(held_back: HeldBack, end: int, high_watermark: int) -> bool:
    """Ask two times: at the first look at an end it is not known what follows."""
    await held_back.is_settled(0, SOURCE, end, high_watermark)
    return await held_back.is_settled(0, SOURCE, end, high_watermark)


async def test_batches_of_open_transactions_are_read_once_and_one_outside_of_them_is_found() -> None:
    leader = Leader()
    held_back = HeldBack(leader)
    leader.log = [of_a_transaction(0), of_a_transaction(1)]
    assert not await twice(held_back, 0, 2)
    assert not await held_back.is_settled(0, SOURCE, 0, 2)
    assert leader.asked == [0, 1]
    leader.log.append(plain(2))
    assert await held_back.is_settled(0, SOURCE, 0, 3)
    assert leader.asked == [0, 1, 2]


async def test_a_log_that_became_shorter_is_read_again_from_its_end_on() -> None:
    leader = Leader()
    held_back = HeldBack(leader)
    leader.log = [of_a_transaction(offset) for offset in range(4)]
    assert not await twice(held_back, 0, 4)
    # An election that lost the last two; a record of no transaction follows, where one of a transaction was.
    leader.log = [of_a_transaction(0), of_a_transaction(1), plain(2)]
    assert await twice(held_back, 0, 3)


async def test_an_end_that_moved_back_is_read_on_from_and_what_was_found_beyond_it_is_forgotten() -> None:
    leader = Leader()
    held_back = HeldBack(leader)
    leader.log = [plain(0), plain(1), *(of_a_transaction(offset) for offset in range(2, 5))]
    assert not await twice(held_back, 2, 5)
    leader.log = [of_a_transaction(0), plain(1), of_a_transaction(2), of_a_transaction(3), of_a_transaction(4)]
    assert await twice(held_back, 0, 5)
    leader.log[1] = of_a_transaction(1)
    assert await twice(held_back, 0, 5), "what was found stays found"
    leader.log = [of_a_transaction(0)]
    assert not await twice(held_back, 0, 1)
