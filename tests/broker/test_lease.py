# ruff: noqa: SLF001 - the lease watches what aiokafka's coordinator sends
import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import HeartbeatRequest

from tablehouse.kafka.lease import GroupLease
from tablehouse.tasks.clock import SystemClock
from tablehouse.tasks.log import LeaseLost
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.outages import paused
from tests.support.polling import until

SESSION = 10.0


class Clock(SystemClock):
    """The machine's clock, which a test can put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        """Return seconds."""
        return super().monotonic() + self.ahead


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """Calls on_revoked the first time that partitions are revoked."""

    def __init__(self, on_revoked: Callable[[], Awaitable[None]] | None) -> None:
        self._on_revoked = on_revoked

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Call it."""
        on_revoked = self._on_revoked
        if on_revoked is not None and revoked:
            self._on_revoked = None
            await on_revoked()

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Do nothing."""


class Member:
    """A member of a group, its lease, and how many of its heartbeats were sent and were answered.

    Answers arrive while `answers` is set.
    """

    def __init__(self, bootstrap: str, group: str, heartbeat: float) -> None:
        self.clock = Clock()
        self.lease = GroupLease(SESSION, self.clock)
        self.sent = self.answered = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            session_timeout_ms=int(SESSION * 1000),
            heartbeat_interval_ms=int(heartbeat * 1000),
            # Closing would wait for a commit.
            enable_auto_commit=False,
        )

    async def join(self, topic: str, on_revoked: Callable[[], Awaitable[None]] | None = None) -> None:
        """Join, and return when there is an assignment."""
        await self.consumer.start()
        self.consumer.subscribe([topic], listener=Listener(on_revoked))
        coordinator = self.consumer._coordinator
        send = coordinator._send_req

        async def count(request: Any) -> Any:
            self.sent += isinstance(request, HeartbeatRequest)
            answer = await send(request)
            if isinstance(request, HeartbeatRequest):
                self.answered += 1
                await self.answers.wait()
            return answer

        coordinator._send_req = count
        self.lease.attach(coordinator)

        async def joined() -> bool:
            return bool(self.consumer.assignment()) and self.generation > 0

        await until(joined, "the member has joined")

    @property
    def generation(self) -> int:
        """The generation that the consumer is in."""
        return int(self.consumer._coordinator.generation)


@contextlib.asynccontextmanager
async def member(bootstrap: str, group: str, heartbeat: float = 0.2) -> AsyncIterator[Member]:
    one = Member(bootstrap, group, heartbeat)
    try:
        yield one
    finally:
        await one.consumer.stop()


async def group_of_two_partitions(kafka: EmbeddedKafka) -> tuple[str, str]:
    topic = unique("leased")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    return unique("group"), topic


async def test_a_heartbeat_that_is_answered_confirms_the_lease(kafka: EmbeddedKafka) -> None:
    group, topic = await group_of_two_partitions(kafka)
    # So rare that confirm() has to send its own.
    async with member(kafka.bootstrap_servers, group, heartbeat=3) as one:
        assert one.lease.age() == float("inf")
        await one.join(topic)

        await asyncio.gather(*(one.lease.confirm(one.generation) for _ in range(20)))

        assert one.lease.holds(one.generation)
        assert not one.lease.holds(one.generation - 1)
        assert not one.lease.holds(one.generation + 1)
        assert one.answered < 20


async def test_a_confirmation_is_of_a_heartbeat_that_was_sent_afterwards(kafka: EmbeddedKafka) -> None:
    group, topic = await group_of_two_partitions(kafka)
    async with member(kafka.bootstrap_servers, group, heartbeat=3) as one:
        await one.join(topic)
        await one.lease.confirm(one.generation)
        answered = one.answered

        await one.lease.confirm(one.generation)

        assert one.answered > answered


async def test_the_lease_holds_for_half_a_session_from_the_sending_of_a_heartbeat(kafka: EmbeddedKafka) -> None:
    group, topic = await group_of_two_partitions(kafka)
    async with member(kafka.bootstrap_servers, group, heartbeat=3) as one:
        await one.join(topic)
        await one.lease.confirm(one.generation)
        one.answers.clear()

        # It is sent now, and its answer arrives when the lease that it gives is over.
        answered = one.answered
        confirming = asyncio.create_task(one.lease.confirm(one.generation))

        async def on_its_way() -> bool:
            return one.answered > answered

        await until(on_its_way, "an answer is on its way")
        assert one.lease.holds(one.generation)
        one.clock.ahead += SESSION / 2
        assert not one.lease.holds(one.generation)
        one.answers.set()
        await confirming

        assert one.lease.age() >= SESSION / 2
        assert not one.lease.holds(one.generation)
        await one.lease.confirm(one.generation)
        assert one.lease.holds(one.generation)


async def test_while_the_broker_stands_still_nothing_is_confirmed_and_the_lease_runs_out(
    rough_kafka: EmbeddedKafka,
) -> None:
    group, topic = await group_of_two_partitions(rough_kafka)
    async with member(rough_kafka.bootstrap_servers, group) as one:
        await one.join(topic)
        generation = one.generation
        await one.lease.confirm(generation)

        async def over() -> bool:
            return not one.lease.holds(generation)

        with paused(rough_kafka):
            await until(over, "the lease is over")
            sent = one.sent
            confirming = asyncio.create_task(one.lease.confirm(generation))

            async def sent_another() -> bool:
                return one.sent > sent

            await until(sent_another, "a heartbeat is sent to confirm it")
            assert not confirming.done()
        with contextlib.suppress(LeaseLost):  # when the broker counted the pause against the session
            await confirming
            await one.lease.confirm(generation)
            assert one.lease.holds(generation)


async def test_a_rebalance_ends_the_lease_of_the_generation_before(kafka: EmbeddedKafka) -> None:
    group, topic = await group_of_two_partitions(kafka)
    async with member(kafka.bootstrap_servers, group) as one, member(kafka.bootstrap_servers, group) as two:
        await one.join(topic)
        before = one.generation
        await one.lease.confirm(before)
        await two.join(topic)

        with pytest.raises(LeaseLost, match=f"generation {before} has ended; the current one is {before + 1}"):
            await one.lease.confirm(before)
        assert one.generation == two.generation
        await asyncio.gather(one.lease.confirm(one.generation), two.lease.confirm(one.generation))
        assert not one.lease.holds(before)


async def test_an_answer_that_a_rebalance_is_in_progress_is_no_proof(kafka: EmbeddedKafka) -> None:
    group, topic = await group_of_two_partitions(kafka)
    async with member(kafka.bootstrap_servers, group) as one, member(kafka.bootstrap_servers, group) as two:
        confirmed: list[bool] = []

        async def on_revoked() -> None:
            # The rebalance waits for this member, and its heartbeats are answered all the time.
            confirming, answered = asyncio.create_task(one.lease.confirm(before)), one.answered

            async def answered_again() -> bool:
                return one.answered >= answered + 3

            await until(answered_again, "heartbeats are answered")
            confirmed.append(confirming.done())
            lost.append(confirming)

        lost: list[asyncio.Task[None]] = []
        await one.join(topic, on_revoked)
        before = one.generation
        await one.lease.confirm(before)
        await two.join(topic)

        assert confirmed == [False]
        with pytest.raises(LeaseLost):
            await lost[0]


async def test_a_refusal_that_is_about_a_generation_before_leaves_the_member_in_the_present_one(
    kafka: EmbeddedKafka,
) -> None:
    group, topic = await group_of_two_partitions(kafka)
    async with member(kafka.bootstrap_servers, group) as one, member(kafka.bootstrap_servers, group) as two:
        await one.join(topic)
        before = one.generation
        await two.join(topic)
        coordinator = one.consumer._coordinator
        name, generation = coordinator.member_id, one.generation

        with pytest.raises(KafkaError, match=f"generation {before}, which has ended"):
            await coordinator._send_req(HeartbeatRequest(group, before, name))
        await one.lease.confirm(generation)

        assert (coordinator.member_id, one.generation) == (name, generation)
