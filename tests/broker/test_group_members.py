"""Members of the group that are no workers of this release, at a real broker."""

import contextlib
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from tablehouse.placement.wire import (
    Assignment,
    MemberAssignment,
    MemberMetadata,
    PlacedMember,
    encode_assignments,
    encode_metadata,
)
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, new_source, running_engine
from tests.support.kafka import produce
from tests.support.members import answer_of_nobody, invented_member, joining, recording_listener
from tests.support.polling import until
from tests.support.worker import MakeWorker

PARTITIONS = 2


def metadata(url: str = "http://invented:9080") -> MemberMetadata:
    return MemberMetadata("invented", 1, url, "digest", {})


def unusable(topic: str) -> dict[str, bytes]:
    """Return metadata of members that cannot be placed, by what is wrong with it."""
    good = encode_metadata(metadata())
    return {
        "that cannot be read": joining([topic], b"\x01garbage"),
        "version 103": joining([topic], b"garbage"),
        "sent no join metadata": joining([topic], None),
        "unpacks to over": joining([topic], b"\x01" + zlib.compress(bytes(32 << 20))),
        "an invalid topic name": joining([f"{topic} with blanks"], good),
        "the URL of worker": joining([topic], encode_metadata(metadata("http://user:secret@invented:9080"))),
        # Kafka reads this too, and answers the whole group with an error when less of it has the right form.
        "(UnicodeDecodeError)": b"\x00\x00\x00\x00\x00\x01\x00\x02\xe9\xe9\xff\xff\xff\xff",
    }


def left_out(running: RunningEngine, why: str) -> Callable[[], Awaitable[bool]]:
    async def is_left_out() -> bool:
        reasons = [reason for reason in running.engine.health.reasons() if "is left out of the placement" in reason]
        return len(reasons) == 1 and why in reasons[0] and "secret" not in reasons[0]

    return is_left_out


async def test_a_member_that_cannot_be_read_is_left_out_and_told_of_and_the_tables_go_on(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka, PARTITIONS)
    await produce(kafka.bootstrap_servers, topic, [(b"k", b'{"n":1}', 0)])
    cases = unusable(topic)
    # The member must not come to lead the group when the machine is busy.
    async with running_engine(kafka, tmp_path, definition, group, session_timeout="20s") as running:
        await running.wait_active(PARTITIONS)
        for why, sent in cases.items():
            async with invented_member(kafka.bootstrap_servers, group, topic, sent):
                await until(left_out(running, why), f"a member is left out: {why}")
                await running.wait_active(PARTITIONS)
                assert running.metric("tablehouse_group_members_left_out") == 1
                assert running.engine.health.joined()

            async def alone() -> bool:
                return not running.engine.health.reasons()

            await until(alone, "the member has left")
        await running.wait_active(PARTITIONS)
        await running.wait_position("t", 0, 0)
        assert running.read("t", b"k").row is not None
        assert running.metric("tablehouse_group_members_left_out") == 0


async def test_a_worker_of_a_newer_version_waits_and_is_told_and_the_older_one_keeps_its_partitions(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group, definition = await new_source(kafka, PARTITIONS)
    await produce(kafka.bootstrap_servers, topic, [(b"k", b'{"n":1}', 0)])
    async with running_engine(kafka, tmp_path / "older", definition, group, session_timeout="20s") as older:
        await older.wait_active(PARTITIONS)

        newer_url = "http://127.0.0.1:2"
        newer = RunningEngine(kafka, tmp_path / "newer", definition, group, advertised_url=newer_url)

        def encode(said: MemberMetadata) -> bytes:
            data = encode_metadata(said)
            return b"\x02" + data[1:] if said.url == newer_url else data

        monkeypatch.setattr("tablehouse.kafka.assignor.encode_metadata", encode)
        await newer.engine.start()
        await newer.engine.app.start()
        try:
            for running in (older, newer):
                await until(
                    left_out(running, "version 2, this worker understands version 1"), "the newer one is left out"
                )
            assert older.engine.health.joined()
            assert not newer.engine.health.joined()
            await older.wait_active(PARTITIONS)
            assert newer.states() == {}

            async def routes() -> bool:
                snapshot = newer.engine._view.current  # noqa: SLF001
                return len(snapshot.actives) == PARTITIONS and len(snapshot.members) == 1

            await until(routes, "the newer one knows where the partitions are")
        finally:
            newer.engine.drain()
            await newer.engine.app.stop()
            await newer.engine.stop()


def assignments_that_cannot_be_used(topic: str) -> list[bytes]:
    """Return what a leader may send that no worker would."""
    here = PlacedMember("w", 1, "http://w:9080", {topic: list(range(PARTITIONS))}, {})
    right = Assignment(MemberAssignment({topic: [0]}, {}), {topic: PARTITIONS}, [here])

    def sent(assignment: Assignment, given: list[tuple[str, list[int]]] | None = None) -> bytes:
        own = sorted(assignment.own.actives.items()) if given is None else given
        data = encode_assignments({"x": assignment})["x"]
        return bytes(ConsumerProtocolMemberAssignment(0, own, data).encode())

    replace = msgspec.structs.replace
    elsewhere = replace(right, own=MemberAssignment({"elsewhere": [0]}, {}), partitions={topic: 2, "elsewhere": 1})
    return [
        b"",
        b"garbage",
        sent(right)[:-5],
        bytes(ConsumerProtocolMemberAssignment(0, [(topic, [0])], None).encode()),
        bytes(ConsumerProtocolMemberAssignment(0, [(topic, [0])], b"\x09newer").encode()),
        bytes(ConsumerProtocolMemberAssignment(0, [(topic, [0])], b"\x01" + zlib.compress(bytes(32 << 20))).encode()),
        sent(right, [(topic, [0, 1])]),
        sent(right, [("elsewhere", [0])]),
        sent(elsewhere),
        sent(replace(right, own=MemberAssignment({topic: [10**6]}, {})), [(topic, [10**6])]),
        sent(replace(right, members=[replace(here, url="http://user:secret@w")])),
    ]


async def test_what_a_leader_sends_that_cannot_be_right_leaves_a_worker_without_partitions_and_told_why(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka, PARTITIONS)
    bad = assignments_that_cannot_be_used(topic)
    sending = iter(bad)
    async with contextlib.AsyncExitStack() as leading:
        sent = joining([topic], encode_metadata(metadata()))
        invented = await leading.enter_async_context(
            invented_member(kafka.bootstrap_servers, group, topic, sent, lambda: next(sending))
        )

        async def leads() -> bool:
            return invented.led > 0

        await until(leads, "the invented member leads the group")
        async with running_engine(kafka, tmp_path, definition, group) as running:
            engine = running.engine
            for number in range(len(bad)):

                async def refused(generation: float = number + 1) -> bool:
                    assert running.metric("tablehouse_rebalances_total") == generation, engine.health.reasons()
                    return True

                await until(refused, f"assignment {number} has come")
                (reason,) = engine.health.reasons()
                assert reason.startswith("the assignment of the group's leader cannot be used: "), number
                assert "secret" not in reason
                assert running.states() == {}
                if number + 1 < len(bad):
                    running.consumer.rejoin()
            await leading.aclose()
            await running.wait_active(PARTITIONS)
            assert engine.health.reasons() == []


async def test_an_invented_member_gets_neither_the_secret_nor_a_key_and_its_rows_reach_nobody(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    secret = "a-secret-that-the-workers-share"  # noqa: S105 - of workers that live as long as the test
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"k", b'{"n":1}', 0)])
    settings = {"session_timeout": "20s", "internal_secrets": secret}
    worker = make_worker(kafka.bootstrap_servers, definition, group=group, **settings)
    worker.start()
    await worker.wait_ready()
    async with recording_listener(answer_of_nobody(0)) as (url, received):
        described = msgspec.structs.replace(metadata(url), positions={topic: {0: 10**6}})
        sent = joining([topic], encode_metadata(described))
        async with invented_member(kafka.bootstrap_servers, group, topic, sent):

            async def asked() -> bool:
                answer = await worker.get("/tables/t/k?read=active")
                # Either the worker's own row, or none.
                if answer.status != 503 and answer.body != b'{"n":1}':
                    raise ValueError(answer)
                return bool(received)

            await until(asked, "the invented member is asked")
            answer = await worker.get("/tables/t/k?read=active")
            assert (answer.status, answer.json["code"]) == (503, "owner_unreachable")
            assert "does not prove to be worker invented" in answer.json["tried"][0]["reason"]
            _, cluster = await worker.document("/cluster")
            assert {member["worker"]: member["reachable"] for member in cluster["members"]}["invented"] is False
        assert secret.encode() not in b"".join(received)
        without_keys = (b"GET /internal/v1/challenge ", b"GET /internal/v1/link ")
        assert all(request.startswith(without_keys) for request in received)
    assert secret not in worker.log_text()
