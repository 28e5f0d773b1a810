"""What docs/settings.md says that a worker has to be allowed, at a real broker with an authorizer."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from tablehouse.testing.kafka import EmbeddedKafka, Listener
from tests.support.kafka import create_topic, delete_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, table, tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"

USER, PASSWORD = "worker", "correct horse"

#: Of Kafka's protocol.
RESOURCES = {"topic": 2, "group": 3}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "DescribeConfigs": 10}
LITERAL, ALLOW = 3, 3


class Acl(NamedTuple):
    """A line of the document: what is allowed on a resource, with the document's words for its name."""

    resource: str
    name: str
    operation: str
    condition: str


def documented() -> list[Acl]:
    """Return what the document says has to be allowed."""
    found = re.findall(r"^\| (topic|group) `(\S+)`([^|]*) \| ([A-Z][\w, ]+) \|", DOCUMENT.read_text(), re.MULTILINE)
    return [
        Acl(resource, name, operation, condition)
        for resource, name, condition, operations in found
        for operation in operations.split(", ")
    ]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedKafka, Listener]]:
    """Start a broker that lets its own port do everything, and a user of the other what ACLs allow."""
    login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    listener = Listener(
        "plain", "SASL_PLAINTEXT", {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": login}
    )
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    folder = tmp_path_factory.mktemp("guarded")
    with EmbeddedKafka(folder, listeners=[listener], properties=properties) as broker:
        yield broker, listener


async def allow(broker: EmbeddedKafka, names: Mapping[str, str], acls: list[Acl]) -> None:
    """Allow the user what a document says, with these names in place of the document's."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        for acl in acls:
            name = re.sub(r"<(\w+)>", lambda found: names[found[1]], acl.name)
            request = CreateAclsRequest(
                RESOURCES[acl.resource], name, LITERAL, f"User:{USER}", "*", OPERATIONS[acl.operation], ALLOW
            )
            answer = await admin._send_request(request)  # noqa: SLF001 - its client has no call for it
            assert [error[0] for error in answer.creation_responses] == [0], answer
    finally:
        await admin.close()


class Scene:
    """A source topic with a writable table over it, and workers that log in as the user."""

    def __init__(self, guarded: tuple[EmbeddedKafka, Listener], make_worker: MakeWorker) -> None:
        self.broker, self._listener = guarded
        self.topic, self.group = unique("source"), unique("group")
        self._make = partial(make_worker, tables=tables(table("planes", self.topic) + "    writable: true\n"))

    async def prepare(self, acls: list[Acl]) -> None:
        """Make the topic, with a row and a record that cannot be one, and allow the user all this."""
        bootstrap, names = self.broker.bootstrap_servers, {"group": self.group, "source": self.topic, "table": "planes"}
        await create_topic(bootstrap, self.topic, 1)
        await produce(bootstrap, self.topic, [(b"N14228", b'{"seats":149}', None), (b"N24211", b"no JSON", None)])
        await allow(self.broker, names, acls)

    def free_worker(self) -> WorkerProcess:
        """Return a worker that may do everything."""
        return self._make(self.broker.bootstrap_servers, group=self.group)

    def worker(self) -> WorkerProcess:
        """Return a worker that may do what the user may."""
        return self._make(
            self._listener.bootstrap_servers,
            group=self.group,
            kafka_security_protocol=self._listener.protocol,
            kafka_sasl_mechanism="PLAIN",
            kafka_sasl_username=USER,
            kafka_sasl_password=PASSWORD,
        )

    async def committed(self) -> bool:
        """Say whether offsets were committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)
        await admin.start()
        try:
            return bool(await admin.list_consumer_group_offsets(self.group))
        finally:
            await admin.close()

    async def check(self, worker: WorkerProcess) -> None:
        """Check that a worker does everything that a worker does."""
        await worker.wait_ready()
        answer = await worker.get("/tables/planes/N14228")
        assert (answer.status, answer.body) == (200, b'{"seats":149}')
        url = f"{worker.url}/tables/planes/N10156?wait=visible"
        async with aiohttp.ClientSession() as session, session.put(url, json={"seats": 55}) as written:
            assert written.status == 200, await written.text()
        await until(self.committed, "offsets are committed", 60.0)


async def test_a_worker_that_may_do_what_is_documented_reads_answers_and_writes(
    guarded: tuple[EmbeddedKafka, Listener], make_worker: MakeWorker
) -> None:
    scene = Scene(guarded, make_worker)
    await scene.prepare(documented())
    worker = scene.worker()
    worker.start()
    await scene.check(worker)
    assert await worker.metric("tablehouse_dead_letters_total") == 1
    assert "uthoriz" not in worker.log_text()


async def test_a_worker_that_may_not_join_the_group_ends_by_a_line_that_says_so(
    guarded: tuple[EmbeddedKafka, Listener], make_worker: MakeWorker
) -> None:
    scene = Scene(guarded, make_worker)
    await scene.prepare([acl for acl in documented() if acl.resource != "group"])
    worker = scene.worker()
    worker.start()
    assert await worker.wait_exit() == 2
    said = worker.log_text()
    assert said.splitlines()[-1].endswith("; allow this worker Read on the group")
    assert not any(word in said for word in ("Traceback", "rash", "NoneType")), said


async def test_a_worker_whose_topics_are_there_has_to_be_allowed_to_create_none(
    guarded: tuple[EmbeddedKafka, Listener], make_worker: MakeWorker
) -> None:
    scene = Scene(guarded, make_worker)
    await scene.prepare([acl for acl in documented() if acl.operation != "Create"])

    refused = scene.worker()
    refused.start()
    assert await refused.wait_exit() == 2
    assert f"topic {scene.group}-epoch-probe cannot be created: " in refused.log_text()
    assert "; allow this worker to create it, or create it with: kafka-topics.sh " in refused.log_text()

    before = scene.free_worker()
    before.start()
    await before.wait_ready()
    before.terminate()
    await before.wait_exit()
    worker = scene.worker()
    worker.start()
    await scene.check(worker)

    # Nor can it create again what is deleted.
    letters = f"{scene.group}-dead-letters"
    await delete_topic(scene.broker.bootstrap_servers, letters)
    await produce(scene.broker.bootstrap_servers, scene.topic, [(b"N24211", b"no JSON", None), (b"N1", b"{}", None)])

    async def told() -> bool:
        [task] = await worker.tasks()
        said = task["reason"] or ""
        assert f"the dead letters cannot be written: topic {letters} cannot be created: " in said
        assert "; allow this worker to create it, or create it with: kafka-topics.sh " in said
        return True

    await until(told, "the worker says what to do", 60.0)
    assert (await worker.get("/tables/planes/N14228")).status == 200
    await create_topic(scene.broker.bootstrap_servers, letters, 1)

    async def goes_on() -> bool:
        return (await worker.get("/tables/planes/N1")).status == 200

    await until(goes_on, "the record behind the dead letter is applied", 60.0)
    assert "never retrieved" not in worker.log_text()
