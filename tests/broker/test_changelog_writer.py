# ruff: noqa: SLF001 - which producer has a partition in hand is not to be seen from outside
import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.protocol.produce import ProduceRequest

import tablehouse.kafka.changelog_writer as module
from tablehouse.kafka.changelog_writer import KafkaChangelogWriter
from tablehouse.model import Epoch, TopicPartition
from tablehouse.tasks.log import Fenced, OutcomeUnknown
from tablehouse.tasks.records import epoch_of
from tablehouse.tasks.takeover import SEALING_EPOCH
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.changelog import changelog_writer, content, log_reader, new_log, read_to
from tests.support.outages import paused
from tests.support.polling import until


def epoch(number: int, id_index: int = 0) -> Epoch:
    return Epoch(id_index, number)


async def claim(writer: KafkaChangelogWriter, partition: TopicPartition, number: int, id_index: int = 0) -> int:
    return await writer.claim(partition, epoch(number, id_index), b"claim", b"claim %d" % number)


async def append(writer: KafkaChangelogWriter, partition: TopicPartition, number: int, *values: bytes) -> int:
    batch = writer.encode(partition, epoch(number), [(b"k", value) for value in values])
    assert batch is not None
    return await writer.append(partition, epoch(number), batch)


async def test_an_append_returns_the_offset_of_its_first_record_and_each_carries_the_epoch(
    kafka: EmbeddedKafka,
) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with changelog_writer(kafka.bootstrap_servers) as writer, log_reader(kafka.bootstrap_servers) as reader:
        assert await claim(writer, log, 3) == 0
        assert await append(writer, log, 3, b"a", b"b") == 1
        assert await append(writer, log, 3, b"c") == 3

        records = await read_to(reader, log, 0, 4)
    assert [record.value for record in records] == [b"claim 3", b"a", b"b", b"c"]
    assert {epoch_of(record.headers) for record in records} == {epoch(3)}


async def test_the_broker_refuses_an_owner_of_an_older_epoch_whichever_process_it_is(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with (
        changelog_writer(kafka.bootstrap_servers) as zombie,
        changelog_writer(kafka.bootstrap_servers) as owner,
        log_reader(kafka.bootstrap_servers) as reader,
    ):
        await claim(zombie, log, 1)
        await append(zombie, log, 1, b"old")
        await claim(owner, log, 2)

        with pytest.raises(Fenced, match=r"log-.*\[0\] has a newer epoch"):
            await append(zombie, log, 1, b"late")
        with pytest.raises(Fenced):
            await claim(zombie, log, 1)
        assert await append(owner, log, 2, b"new") == 3
        assert [value for _, value in await content(reader, log)] == [b"claim 1", b"old", b"claim 2", b"new"]


async def test_being_fenced_on_one_partition_leaves_the_others_alone(kafka: EmbeddedKafka) -> None:
    lost, kept = await new_log(kafka.bootstrap_servers, 2)
    async with changelog_writer(kafka.bootstrap_servers) as writer, changelog_writer(kafka.bootstrap_servers) as other:
        await claim(writer, lost, 1)
        await claim(writer, kept, 1)
        await claim(other, lost, 2)

        results = await asyncio.gather(
            append(writer, lost, 1, b"refused"), append(writer, kept, 1, b"taken"), return_exceptions=True
        )

        assert isinstance(results[0], Fenced)
        assert results[1] == 1
        assert await append(writer, kept, 1, b"again") == 2
        # And the writer may own the partition it lost once more.
        assert await claim(writer, lost, 3) == 2
        assert await append(writer, lost, 3, b"mine") == 3


async def test_partitions_have_epochs_and_sequences_of_their_own(kafka: EmbeddedKafka) -> None:
    logs = await new_log(kafka.bootstrap_servers, 3)
    async with changelog_writer(kafka.bootstrap_servers) as writer, changelog_writer(kafka.bootstrap_servers) as other:
        await asyncio.gather(*(claim(writer, log, 10 * (log.partition + 1)) for log in logs))
        for round_number in range(3):
            offsets = await asyncio.gather(*(append(writer, log, 10 * (log.partition + 1), b"a", b"b") for log in logs))
            assert list(offsets) == [1 + 2 * round_number] * 3
        # The broker saw no higher epoch than that of each partition.
        for log in logs:
            assert await claim(other, log, 10 * (log.partition + 1) + 1) == 7


async def test_the_sequence_restarts_with_each_claim(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with changelog_writer(kafka.bootstrap_servers) as writer:
        await claim(writer, log, 1)
        await append(writer, log, 1, b"a", b"b", b"c")
        # A broker refuses a new epoch that does not begin at sequence 0.
        assert await claim(writer, log, 2) == 4
        assert await append(writer, log, 2, b"d") == 5


async def test_the_loser_of_a_race_for_an_epoch_is_told_the_offset_of_the_winner(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with (
        changelog_writer(kafka.bootstrap_servers) as one,
        changelog_writer(kafka.bootstrap_servers) as two,
        log_reader(kafka.bootstrap_servers) as reader,
    ):
        offsets = await asyncio.gather(
            one.claim(log, epoch(1), b"claim", b"of one"), two.claim(log, epoch(1), b"claim", b"of two")
        )

        assert set(offsets) == {0}
        found = await content(reader, log)
    assert found in ([(0, b"of one")], [(0, b"of two")])


async def test_what_the_loser_of_a_race_appends_is_an_unknown_outcome_at_most_and_never_its_rows(
    kafka: EmbeddedKafka,
) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with (
        changelog_writer(kafka.bootstrap_servers) as winner,
        changelog_writer(kafka.bootstrap_servers) as loser,
        log_reader(kafka.bootstrap_servers) as reader,
    ):
        await claim(winner, log, 1)
        await claim(loser, log, 1)
        await append(winner, log, 1, b"row of the winner")

        # The same sequence numbers: the broker takes it for a repetition, and the offset is not the loser's own either.
        assert await append(loser, log, 1, b"row of the loser") == 1
        assert [value for _, value in await content(reader, log)] == [b"claim 1", b"row of the winner"]


async def test_a_batch_that_does_not_fit_is_not_encoded(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers, max_message_bytes="4096")
    async with changelog_writer(kafka.bootstrap_servers, batch_size=4096) as writer:
        await claim(writer, log, 1)

        assert writer.encode(log, epoch(1), [(b"k", b"x" * 5000)]) is None
        assert writer.encode(log, epoch(1), [(b"k%d" % number, b"x" * 100) for number in range(50)]) is None
        # The largest that is encoded is taken by a topic of the same limit.
        largest = max(size for size in range(3900, 4097) if writer.encode(log, epoch(1), [(b"k", b"x" * size)]))
        assert await append(writer, log, 1, b"x" * largest) == 1


async def test_a_batch_that_the_topic_does_not_take_has_an_unknown_outcome_and_the_next_claim_works(
    kafka: EmbeddedKafka,
) -> None:
    (log,) = await new_log(kafka.bootstrap_servers, max_message_bytes="4096")
    async with changelog_writer(kafka.bootstrap_servers) as writer:
        await claim(writer, log, 1)

        with pytest.raises(OutcomeUnknown, match="MessageSizeTooLarge"):
            await append(writer, log, 1, b"x" * 8000)
        assert await claim(writer, log, 2) == 1
        assert await append(writer, log, 2, b"a") == 2


async def test_a_producer_id_is_sealed_and_the_next_one_begins_at_epoch_1(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with (
        changelog_writer(kafka.bootstrap_servers) as zombie,
        changelog_writer(kafka.bootstrap_servers) as writer,
    ):
        await claim(zombie, log, SEALING_EPOCH - 1)
        assert await claim(writer, log, SEALING_EPOCH) == 1
        assert await claim(writer, log, 1, id_index=1) == 2

        with pytest.raises(Fenced):
            await append(zombie, log, SEALING_EPOCH - 1, b"late")
        batch = writer.encode(log, epoch(1, 1), [(b"k", b"new")])
        assert await writer.append(log, epoch(1, 1), batch) == 3


async def test_ids_that_brokers_allot_are_never_ours(kafka: EmbeddedKafka) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True)
    await producer.start()
    try:
        assert 0 <= producer._txn_manager.producer_id < module.PRODUCER_ID
    finally:
        await producer.stop()


async def test_after_an_unknown_outcome_the_partition_goes_on_beside_the_stuck_batch(
    rough_kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_TIMEOUT", 1.0)
    bootstrap = rough_kafka.bootstrap_servers
    stuck, other = await new_log(bootstrap, 2)
    async with changelog_writer(bootstrap, request_timeout=2) as writer, log_reader(bootstrap) as reader:
        await claim(writer, stuck, 1)
        await claim(writer, other, 1)
        with paused(rough_kafka):
            with pytest.raises(OutcomeUnknown, match=r"no acknowledgement from log-.*\[0\] within 1 s"):
                await append(writer, stuck, 1, b"overdue")
            assert stuck in writer._unsettled
            with pytest.raises(OutcomeUnknown):
                await claim(writer, stuck, 2)

        # The batch may land now, before the claim; whatever it does, it does not land after it.
        offset = await until(lambda: claim_when_reachable(writer, stuck, 3), "a claim is taken")
        first = await append(writer, stuck, 3, b"next")
        assert first == offset + 1
        await until(lambda: settled(writer, stuck), "the overdue batch is settled")
        assert await append(writer, stuck, 3, b"on the shared producer again") == first + 1
        assert stuck not in writer._private
        assert await append(writer, other, 1, b"unharmed") == 1

        values = [value for _, value in await content(reader, stuck)]
        assert values[-3:] == [b"claim 3", b"next", b"on the shared producer again"]
        assert values[0] == b"claim 1"
        assert set(values[1:-3]) <= {b"overdue", b"claim 2"}
        assert len(values) == len(set(values))


async def test_an_overdue_batch_that_arrives_after_the_next_claim_is_refused(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_TIMEOUT", 1.0)
    (log,) = await new_log(kafka.bootstrap_servers)
    async with (
        changelog_writer(kafka.bootstrap_servers) as writer,
        changelog_writer(kafka.bootstrap_servers) as owner,
        log_reader(kafka.bootstrap_servers) as reader,
    ):
        await claim(writer, log, 1)
        held = hold_requests(writer, monkeypatch)
        with pytest.raises(OutcomeUnknown):
            await append(writer, log, 1, b"late")
        assert await claim(owner, log, 2) == 1
        held.set()

        await until(lambda: settled(writer, log), "the overdue batch is settled")
        with pytest.raises(Fenced):
            await append(writer, log, 1, b"later still")
        assert [value for _, value in await content(reader, log)] == [b"claim 1", b"claim 2"]


async def test_a_claim_on_a_private_producer_fences_the_batch_that_is_stuck_in_the_shared_one(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_TIMEOUT", 1.0)
    (log,) = await new_log(kafka.bootstrap_servers)
    async with changelog_writer(kafka.bootstrap_servers) as writer, log_reader(kafka.bootstrap_servers) as reader:
        await claim(writer, log, 1)
        held = hold_requests(writer, monkeypatch)
        with pytest.raises(OutcomeUnknown):
            await append(writer, log, 1, b"late")

        assert await claim(writer, log, 2) == 1
        assert await append(writer, log, 2, b"on the private one") == 2
        assert log in writer._private
        held.set()
        await until(lambda: settled(writer, log), "the stuck batch is settled")
        assert await append(writer, log, 2, b"on the shared one") == 3
        assert log not in writer._private

        assert [value for _, value in await content(reader, log)] == [
            b"claim 1",
            b"claim 2",
            b"on the private one",
            b"on the shared one",
        ]


async def test_a_zombie_on_a_private_producer_is_fenced_too(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_TIMEOUT", 1.0)
    (log,) = await new_log(kafka.bootstrap_servers)
    async with changelog_writer(kafka.bootstrap_servers) as writer, changelog_writer(kafka.bootstrap_servers) as other:
        await claim(writer, log, 1)
        held = hold_requests(writer, monkeypatch)
        with pytest.raises(OutcomeUnknown):
            await append(writer, log, 1, b"late")
        await claim(writer, log, 2)
        await claim(other, log, 3)

        with pytest.raises(Fenced):
            await append(writer, log, 2, b"of the zombie")
        assert await claim(writer, log, 4) == 3
        held.set()


async def test_an_append_that_was_cancelled_leaves_the_partition_to_a_private_producer_until_it_is_settled(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with changelog_writer(kafka.bootstrap_servers) as writer:
        await claim(writer, log, 1)
        held = hold_requests(writer, monkeypatch)
        appending = asyncio.create_task(append(writer, log, 1, b"cancelled"))
        await until(lambda: in_hand(writer, log), "the batch is on its way")
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending

        assert await claim(writer, log, 2) == 1
        assert log in writer._private
        held.set()
        await until(lambda: settled(writer, log), "the cancelled batch is settled")
        assert await append(writer, log, 2, b"a") == 2


async def test_stopping_does_not_wait_for_a_broker_that_does_not_answer(
    rough_kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_TIMEOUT", 0.5)
    (log,) = await new_log(rough_kafka.bootstrap_servers)
    async with changelog_writer(rough_kafka.bootstrap_servers) as writer:
        await claim(writer, log, 1)
        with paused(rough_kafka):
            with pytest.raises(OutcomeUnknown):
                await append(writer, log, 1, b"never")
            # Below the 10 s that aiokafka gives a request.
            async with asyncio.timeout(8):
                await writer.stop()


async def test_what_is_handed_over_at_once_and_what_goes_into_one_request_is_bounded(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BYTES_IN_FLIGHT", 250_000)
    logs = await new_log(kafka.bootstrap_servers, 12)
    async with changelog_writer(kafka.bootstrap_servers) as writer, log_reader(kafka.bootstrap_servers) as reader:
        await asyncio.gather(*(claim(writer, log, 1) for log in logs))
        sizes = request_sizes(writer, monkeypatch)
        # Two fit, and one is larger than all that may be handed over.
        values = {log: b"x" * (400_000 if log.partition == 5 else 100_000) for log in logs}
        offsets = await asyncio.gather(*(append(writer, log, 1, value) for log, value in values.items()))

        assert set(offsets) == {1}
        for log, value in values.items():
            assert [found for _, found in await content(reader, log)] == [b"claim 1", value]
    assert sum(sizes) > 1_500_000
    assert max(sizes) > 400_000
    assert sorted(sizes)[-2] < 250_000


async def test_batches_that_were_given_up_do_not_go_out_in_one_request_when_the_broker_is_back(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BYTES_IN_FLIGHT", 250_000)
    logs = await new_log(kafka.bootstrap_servers, 12)
    async with changelog_writer(kafka.bootstrap_servers) as writer:
        await asyncio.gather(*(claim(writer, log, 1) for log in logs))
        monkeypatch.setattr(module, "APPEND_TIMEOUT", 0.3)
        sizes = request_sizes(writer, monkeypatch)
        held = hold_requests(writer, monkeypatch)
        outcomes = await asyncio.gather(
            *(append(writer, log, 1, b"x" * 100_000) for log in logs), return_exceptions=True
        )
        # Nobody waited longer than those before it were waited for.
        assert {type(outcome) for outcome in outcomes} == {OutcomeUnknown}
        assert set(writer._unsettled) == set(logs)
        held.set()

        async def all_settled() -> bool:
            return not writer._unsettled

        await until(all_settled, "all batches are settled")
    assert len(sizes) >= 6
    assert max(sizes) < 250_000


async def test_a_claim_does_not_wait_for_appends(kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_IN_FLIGHT", 1000)
    first, second = await new_log(kafka.bootstrap_servers, 2)
    async with changelog_writer(kafka.bootstrap_servers) as writer:
        await claim(writer, first, 1)
        async with writer._gate.inside(1000):
            appending = asyncio.create_task(append(writer, first, 1, b"waits"))
            assert await claim(writer, second, 1) == 0
            assert not appending.done()
        assert await appending == 1


def request_sizes(writer: KafkaChangelogWriter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the bytes of records in each produce request of the writer's shared producer."""
    client, sizes = writer._shared.client.client, []
    send = client.send

    async def record(node: int, request: object, **more: object) -> object:
        if isinstance(request, ProduceRequest):
            sizes.append(sum(len(data) for _, partitions in request._topics for _, data in partitions))
        return await send(node, request, **more)

    monkeypatch.setattr(client, "send", record)
    return sizes


def hold_requests(writer: KafkaChangelogWriter, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Keep what the writer's shared producer sends in the air until the event is set."""
    client, released = writer._shared.client.client, asyncio.Event()
    send = client.send

    async def hold(*arguments: object, **more: object) -> object:
        await released.wait()
        return await send(*arguments, **more)

    monkeypatch.setattr(client, "send", hold)
    return released


async def settled(writer: KafkaChangelogWriter, partition: TopicPartition) -> bool:
    return partition not in writer._unsettled


async def in_hand(writer: KafkaChangelogWriter, partition: TopicPartition) -> bool:
    return KafkaPartition(*partition) in writer._shared.client._sender._muted_partitions


async def claim_when_reachable(writer: KafkaChangelogWriter, partition: TopicPartition, number: int) -> int | None:
    try:
        return await claim(writer, partition, number)
    except OutcomeUnknown:
        return None
