# ruff: noqa: SLF001 - what the coordinator and the lease know meanwhile
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka.protocol.group import HeartbeatRequest, LeaveGroupRequest

import tablehouse.kafka.assignor as module
from tablehouse.placement.assign import place
from tablehouse.placement.wire import MemberAssignment
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, new_source, running_engine
from tests.support.kafka import add_partitions, produce
from tests.support.polling import until

PARTITIONS = 2

#: Heartbeats of a worker in more than its session, of 3 s with running_engine: one each 0.5 s.
MORE_THAN_A_SESSION = 8


class SlowPlacement:
    """Stands for place(): begins, and does not go on before the event loop has let it."""

    def __init__(self) -> None:
        self.calls = 0
        self.go_on = threading.Event()

    def __call__(self, *arguments: Any) -> Mapping[str, MemberAssignment]:
        """Place, once that is let go on."""
        self.calls += 1
        assert self.go_on.wait(20), "the event loop stands still while shards are placed"
        return place(*arguments)


@contextlib.contextmanager
def slow_placement(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowPlacement]:
    slow = SlowPlacement()
    with monkeypatch.context() as patched:
        patched.setattr(module, "place", slow)
        try:
            yield slow
        finally:
            slow.go_on.set()


async def begin_rebalance(running: RunningEngine, slow: SlowPlacement) -> int:
    """Return once shards are being placed, and the generation for which they are."""
    before = running.engine.health.generation()
    running.consumer.rejoin()

    async def begun() -> bool:
        return slow.calls > 0

    await until(begun, "shards are placed")
    generation = int(running.consumer.client._coordinator.generation)
    assert generation > before == running.engine.health.generation()
    return generation


async def end_rebalance(running: RunningEngine, generation: int) -> None:
    """Wait until what was placed is taken up; it must not have come to another generation."""

    async def assigned() -> bool:
        return running.engine.health.generation() >= generation

    await until(assigned, f"generation {generation} is assigned")
    assert running.engine.health.generation() == generation
    await running.wait_active(PARTITIONS)


def watch(running: RunningEngine, kind: type) -> list[tuple[Any, int]]:
    """Return where requests of a kind will be with the error codes of their answers."""
    coordinator, answers = running.consumer.client._coordinator, []
    send = coordinator._send_req

    async def keep(request: Any) -> Any:
        answer = await send(request)
        if isinstance(request, kind):
            answers.append((request, answer.error_code))
        return answer

    coordinator._send_req = keep
    return answers


class Scene:
    """A worker that places its shards and does not go on before it is let."""

    def __init__(self, running: RunningEngine, slow: SlowPlacement, topic: str, group: str) -> None:
        self.running, self.slow, self.topic, self.group = running, slow, topic, group
        self.heartbeats = watch(running, HeartbeatRequest)
        self.generation = 0

    def good_heartbeats(self) -> int:
        """Return how many heartbeats of the generation that begins were answered without an error."""
        return sum(error == 0 for request, error in self.heartbeats if request._generation_id == self.generation)


@contextlib.asynccontextmanager
async def placing(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, placed: int | None
) -> AsyncIterator[Scene]:
    """Run the context while shards are placed; they are taken up after it, and placed this often if that is known."""
    topic, group, definition = await new_source(kafka, PARTITIONS)
    await produce(kafka.bootstrap_servers, topic, [(b"k", b'{"n":1}', 0)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(PARTITIONS)
        await running.wait_position("t", 0, 0)
        with slow_placement(monkeypatch) as slow:
            scene = Scene(running, slow, topic, group)
            scene.generation = await begin_rebalance(running, slow)
            yield scene
            slow.go_on.set()
            await end_rebalance(running, scene.generation)
            assert placed in {None, slow.calls}


async def test_the_worker_that_leads_answers_reads_and_heartbeats_while_it_places(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with placing(kafka, tmp_path, monkeypatch, placed=1) as scene:

        async def outlasts_the_session() -> bool:
            assert scene.running.read("t", b"k").row is not None
            return scene.good_heartbeats() >= MORE_THAN_A_SESSION

        await until(outlasts_the_session, "heartbeats are answered")


async def test_partition_counts_that_change_while_shards_are_placed_are_not_overlooked(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with placing(kafka, tmp_path, monkeypatch, placed=2) as scene:
        await add_partitions(kafka.bootstrap_servers, scene.topic, PARTITIONS + 1)

        async def noticed() -> bool:
            return scene.running.consumer.partition_counts() == {scene.topic: PARTITIONS + 1}

        await until(noticed, "the worker knows of the new partition")


async def test_a_worker_that_the_group_drops_while_it_places_joins_again_at_once(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with placing(kafka, tmp_path, monkeypatch, placed=None) as scene:
        coordinator = scene.running.consumer.client._coordinator
        member = coordinator.member_id
        await coordinator._send_req(LeaveGroupRequest(scene.group, member))

        async def places_again() -> bool:
            return scene.slow.calls > 1

        # The first thread still waits.
        await until(places_again, "shards are placed for another member")
        assert coordinator.member_id != member
        scene.generation = int(coordinator.generation)


async def test_a_connection_to_the_coordinator_that_is_lost_while_shards_are_placed_is_made_anew(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with placing(kafka, tmp_path, monkeypatch, placed=1) as scene:
        scene.running.consumer.client._coordinator.coordinator_dead()

        async def heard() -> bool:
            return scene.good_heartbeats() > 0

        await until(heard, "a heartbeat is answered")


async def test_a_worker_that_stops_while_it_places_leaves_the_group_at_once(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, group, definition = await new_source(kafka, PARTITIONS)
    with contextlib.ExitStack() as placing:
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await running.wait_active(PARTITIONS)
            left = watch(running, LeaveGroupRequest)
            await begin_rebalance(running, placing.enter_context(slow_placement(monkeypatch)))
    assert [error for _, error in left] == [0]
