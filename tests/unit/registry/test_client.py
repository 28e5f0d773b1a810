import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from structlog.testing import capture_logs

from tablehouse.errors import ConfigError
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import Reference, Schema, SchemaNeeded
from tablehouse.registry import client as client_module
from tablehouse.registry import transport
from tablehouse.registry.client import DENIED_PAUSE, MAX_ID, MAX_PAUSE, UNKNOWN_SECONDS, SchemaRegistry
from tablehouse.registry.lookup import MAX_REFERENCES
from tablehouse.registry.saved import SavedSchemas
from tablehouse.registry.transport import Access, Bearer
from tablehouse.telemetry import Metrics
from tests.support.polling import until
from tests.support.registry import StandInRegistry

PLANE = '{"type":"record","name":"Plane","fields":[]}'
OTHER = '{"type":"record","name":"Other","fields":[{"name":"p","type":"Plane"}]}'

GUID = UUID("89791762-2336-4186-9674-299b90a802e2")

#: Seconds for which the registry has to deny a schema.
UNKNOWN_AFTER = 10.0

PLAIN = ssl.create_default_context()


class Client:
    """A client whose pauses take no time, and are kept; its clock is moved by them and by hand alone."""

    def __init__(self, file: Path, urls: Sequence[str], auth: httpx.Auth | None = None) -> None:
        self.pauses: list[float] = []
        self.now = 1000.0
        self.metrics = Metrics("test")
        self.registry = SchemaRegistry(
            Access(tuple(urls), PLAIN, auth),
            SavedSchemas(file, urls),
            self.metrics,
            UNKNOWN_AFTER,
            self._sleep,
            lambda: self.now,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def requests(self, outcome: str) -> float:
        """Return how many requests are counted with an outcome."""
        sample = "tablehouse_schema_registry_requests_total"
        return self.metrics.registry.get_sample_value(sample, {"outcome": outcome}) or 0.0


MakeClient = Callable[..., Client]


@pytest.fixture
async def server() -> AsyncIterator[StandInRegistry]:
    async with StandInRegistry() as server:
        server.register("plane", 1, PLANE)
        server.register("other", 2, OTHER, references=[{"name": "Plane", "subject": "plane", "version": 1}])
        yield server


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[MakeClient]:
    """Make clients of some URLs, that share a file and are stopped at the end."""
    made: list[Client] = []

    def make_one(*urls: str, auth: httpx.Auth | None = None) -> Client:
        made.append(Client(tmp_path / "schemas.json", urls, auth))
        return made[-1]

    yield make_one
    for one in made:
        await one.registry.stop()


async def trouble(client: Client, words: str) -> str:
    """Wait until something is wrong with the registry, and return what."""

    async def said() -> str | None:
        found = client.registry.trouble
        assert found is None or words in found, found
        return found

    return await until(said, f"trouble: {words}", 20)


async def test_a_schema_is_fetched_once_with_all_that_it_refers_to(server: StandInRegistry, make: MakeClient) -> None:
    client = make(server.url)
    with pytest.raises(SchemaNeeded) as needed:
        client.registry.known(2)
    assert needed.value.needed == 2
    await client.registry.fetch(2)
    plane = Schema(1, "AVRO", PLANE)
    assert client.registry.known(2) == Schema(2, "AVRO", OTHER, (Reference("Plane", "plane", 1, plane),))
    assert server.paths == ["/schemas/ids/2", "/subjects/plane/versions/1"]
    assert client.requests("found") == 2
    assert client.metrics.registry.get_sample_value("tablehouse_schemas_cached") == 1


async def test_a_restarted_client_knows_what_was_fetched_while_the_registry_is_away(
    server: StandInRegistry, make: MakeClient
) -> None:
    first = make(server.url)
    await first.registry.fetch(2)
    await server.stop()
    second = make(server.url)
    await second.registry.start()
    assert second.registry.known(2) == first.registry.known(2)
    assert second.registry.trouble == f"{server.url}: connection refused"


async def test_saved_schemas_are_those_of_the_registry_s_urls(server: StandInRegistry, make: MakeClient) -> None:
    client = make(server.url)
    await client.registry.fetch(1)
    same, other = make("http://127.0.0.1:1", server.url), make("http://127.0.0.1:1")
    await same.registry.start()
    assert same.registry.known(1).text == PLANE
    await other.registry.start()
    with pytest.raises(SchemaNeeded):
        other.registry.known(1)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"layout":2,"urls":[],"content":{}}'])
async def test_saved_schemas_that_cannot_be_read_are_fetched_again(
    content: bytes, server: StandInRegistry, make: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "schemas.json").write_bytes(content)
    client = make(server.url)
    with capture_logs() as logs:
        await client.registry.start()
    assert [line["log_level"] for line in logs] == ["warning"]
    await client.registry.fetch(1)
    again = make(server.url)
    await again.registry.start()
    assert again.registry.known(1).text == PLANE


async def test_a_disk_that_takes_nothing_costs_only_the_next_start(
    server: StandInRegistry, make: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "schemas.new").mkdir()
    client = make(server.url)
    with capture_logs() as logs:
        await client.registry.fetch(1)
    assert client.registry.known(1).text == PLANE
    assert [line["event"] for line in logs] == ["schema fetched", "schemas cannot be saved"]


async def test_an_id_that_the_registry_goes_on_denying_is_unknown_for_a_while_and_then_asked_for_again(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    await client.registry.fetch(9)
    assert server.paths == ["/schemas/ids/9"] * 11
    assert client.pauses == [DENIED_PAUSE] * 10
    with pytest.raises(DecodeError, match="schema 9 is not available from the schema registry: Schema not found"):
        client.registry.known(9)
    client.now += UNKNOWN_SECONDS - 1
    with pytest.raises(DecodeError):
        client.registry.known(9)
    client.now += 1
    with pytest.raises(SchemaNeeded):
        client.registry.known(9)
    server.register("late", 9, PLANE)
    await client.registry.fetch(9)
    assert client.registry.known(9).text == PLANE
    assert (client.requests("not_found"), client.requests("found")) == (11, 1)


@pytest.mark.parametrize("after", [1, 4, UNKNOWN_AFTER])
async def test_a_schema_that_a_registry_hears_of_later_is_waited_for_and_the_wait_says_so(
    server: StandInRegistry, make: MakeClient, after: float
) -> None:
    client = make(server.url)
    began, sleep, said = client.now, client.registry._sleep, []  # noqa: SLF001

    async def register_in_time(seconds: float) -> None:
        said.append(client.registry.describe(9))
        await sleep(seconds)
        if client.now >= began + after:
            server.register("late", 9, PLANE)

    client.registry._sleep = register_in_time  # noqa: SLF001
    await client.registry.fetch(9)
    assert client.registry.known(9).text == PLANE
    assert client.now == began + after
    denied = f"schema 9 of the registry {server.url}, which does not know it so far (Schema not found)"
    assert set(said) == {denied}
    assert client.registry.describe(9) == f"schema 9 of the registry {server.url}"


async def test_a_registry_that_was_away_is_not_believed_sooner_for_what_it_said_before(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    began, sleep = client.now, client.registry._sleep  # noqa: SLF001

    async def be_away_for_a_while(seconds: float) -> None:
        await sleep(seconds)
        passed = client.now - began
        server.answer = (503, {}, "") if 3 <= passed < 20 else None
        if passed >= 28:
            server.register("late", 9, PLANE)

    client.registry._sleep = be_away_for_a_while  # noqa: SLF001
    await client.registry.fetch(9)
    assert client.registry.known(9).text == PLANE


async def test_a_denial_is_believed_at_once_where_the_setting_says_so(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    client.registry._unknown_after = 0.0  # noqa: SLF001
    await client.registry.fetch(9)
    assert server.paths == ["/schemas/ids/9"]


async def test_an_id_beyond_what_registries_count_is_not_asked_for(server: StandInRegistry, make: MakeClient) -> None:
    client = make(server.url)
    with pytest.raises(DecodeError, match="is not a schema id"):
        client.registry.known(MAX_ID + 1)


@pytest.mark.parametrize(
    ("answer", "words", "outcome"),
    [
        ((401, {}, ""), "401 Unauthorized: check schema_registry_user and schema_registry_password", "refused"),
        ((403, {}, ""), "403 Forbidden: check schema_registry_user", "refused"),
        ((500, {}, ""), "500 Internal Server Error", "unavailable"),
        ((503, {}, "<html>"), "503 Service Unavailable", "unavailable"),
        ((429, {}, ""), "429 Too Many Requests", "unavailable"),
        ((404, {}, "<html>"), "404 Not Found, which is not a response of a schema registry", "unavailable"),
        ((404, {}, '{"error_code":404}'), "404 Not Found, which is not a response of a schema registry", "unavailable"),
        ((302, {"Location": "/login"}, ""), "302 Found to /login, which is not a response", "unavailable"),
        ((200, {}, "<html>"), "its response is not from a schema registry", "unavailable"),
        ((200, {}, "{}"), "its response is not from a schema registry", "unavailable"),
        ((200, {}, '{"schema": 1}'), "its response is not from a schema registry", "unavailable"),
    ],
)
async def test_whatever_else_is_answered_means_waiting_and_never_that_there_is_no_schema(
    answer: tuple[int, dict[str, str], str],
    words: str,
    outcome: str,
    server: StandInRegistry,
    make: MakeClient,
) -> None:
    client = make(server.url)
    server.answer = answer
    fetching = asyncio.ensure_future(client.registry.fetch(1))
    assert await trouble(client, words) in client.registry.describe(1)
    assert client.registry.describe(1).startswith(f"schema 1 of the registry {server.url}: ")
    with pytest.raises(SchemaNeeded):
        client.registry.known(1)
    assert client.requests(outcome) >= 1
    server.answer = None
    await asyncio.wait_for(fetching, 20)
    assert client.registry.known(1).text == PLANE
    assert client.registry.trouble is None


async def test_a_registry_that_does_not_listen_is_asked_again_until_it_does(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    await server.stop()
    fetching = asyncio.ensure_future(client.registry.fetch(1))
    assert await trouble(client, "") == f"{server.url}: connection refused"
    await server.start()
    await asyncio.wait_for(fetching, 20)
    assert client.registry.known(1).text == PLANE


async def test_a_registry_that_does_not_answer_is_given_up_in_time(
    server: StandInRegistry, make: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ANSWER_TIMEOUT", 0.05)
    client = make(server.url)
    server.silent = True
    fetching = asyncio.ensure_future(client.registry.fetch(1))
    assert await trouble(client, "") == f"{server.url}: no answer in time"
    server.silent = False
    monkeypatch.setattr(transport, "ANSWER_TIMEOUT", 10)
    await asyncio.wait_for(fetching, 20)


async def test_pauses_grow_up_to_a_bound_and_are_drawn_at_random(server: StandInRegistry, make: MakeClient) -> None:
    client = make(server.url)
    await server.stop()
    fetching = asyncio.ensure_future(client.registry.fetch(1))

    async def many() -> bool:
        return len(client.pauses) >= 60

    await until(many, "many attempts")
    assert all(0 <= pause <= MAX_PAUSE for pause in client.pauses)
    assert client.pauses[0] <= client_module.FIRST_PAUSE
    assert len(set(client.pauses)) > 30
    assert max(client.pauses) > MAX_PAUSE / 2
    fetching.cancel()


async def test_what_is_wrong_is_logged_when_it_begins_when_it_changes_and_when_it_ends(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    server.answer = 503, {}, ""
    with capture_logs() as logs:
        fetching = asyncio.ensure_future(client.registry.fetch(1))

        async def asked(times: int) -> bool:
            return len(server.requests) >= times

        await until(lambda: asked(5), "several attempts")
        server.answer = 401, {}, ""
        more = len(server.requests) + 5
        await until(lambda: asked(more), "several attempts more")
        server.answer = None
        await asyncio.wait_for(fetching, 20)
    told = [(line["event"], str(line.get("reason", ""))[:3]) for line in logs if "url" in line]
    assert told == [
        ("the schema registry does not answer", "503"),
        ("the schema registry does not answer", "401"),
        ("the schema registry answers again", ""),
    ]


async def test_the_next_url_is_asked_when_one_does_not_answer_and_the_one_that_did_comes_first(
    server: StandInRegistry, make: MakeClient
) -> None:
    async with StandInRegistry() as first:
        first.answer = 503, {}, ""
        client = make(first.url, server.url)
        await client.registry.fetch(1)
        await client.registry.fetch(2)
        assert first.paths == ["/schemas/ids/1"]
        assert client.pauses == []
        first.answer = None
        first.register("new", 3, PLANE)
        await server.stop()
        await client.registry.fetch(3)
    assert client.registry.known(3).text == PLANE


async def test_a_schema_is_unknown_only_when_every_url_that_answers_says_so(
    server: StandInRegistry, make: MakeClient
) -> None:
    async with StandInRegistry() as follower:
        client = make(follower.url, server.url, "http://127.0.0.1:1")
        await client.registry.fetch(1)
        assert client.registry.known(1).text == PLANE
        await client.registry.fetch(9)
    with pytest.raises(DecodeError):
        client.registry.known(9)


async def test_many_partitions_ask_once_and_one_that_goes_away_disturbs_no_other(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    fetches = [asyncio.ensure_future(client.registry.fetch(1)) for _ in range(5)]
    await asyncio.sleep(0)
    fetches[0].cancel()
    await asyncio.wait_for(asyncio.gather(*fetches[1:]), 20)
    assert fetches[0].cancelled()
    assert server.paths == ["/schemas/ids/1"]


async def test_stopping_ends_what_is_under_way(server: StandInRegistry, make: MakeClient) -> None:
    client = make(server.url)
    await server.stop()
    fetching = asyncio.ensure_future(client.registry.fetch(1))
    await trouble(client, "refused")
    await asyncio.wait_for(client.registry.stop(), 20)
    with pytest.raises(asyncio.CancelledError):
        await fetching


async def test_a_schema_that_cannot_be_used_is_unknown_and_says_why(server: StandInRegistry, make: MakeClient) -> None:
    def uses(*pairs: tuple[str, int]) -> list[dict[str, Any]]:
        return [{"name": subject, "subject": subject, "version": version} for subject, version in pairs]

    server.register("thrift", 10, "", schemaType="THRIFT")
    server.register("lost", 11, OTHER, references=uses(("nowhere", 1)))
    server.register("many", 12, OTHER, references=uses(*(("plane", number) for number in range(MAX_REFERENCES + 1))))
    server.register("circle", 13, OTHER, references=uses(("circle", 1)))
    client = make(server.url)
    for schema_id, reason in (
        (10, "it is of type THRIFT, and only AVRO, PROTOBUF, JSON can be read"),
        (11, "it uses version 1 of subject nowhere: Subject not found"),
        (12, f"it uses more than {MAX_REFERENCES} others"),
        (13, "nested too deeply"),
    ):
        await asyncio.wait_for(client.registry.fetch(schema_id), 20)
        with pytest.raises(DecodeError, match=reason):
            client.registry.known(schema_id)


async def test_the_versions_of_a_subject_are_fetched_and_only_new_ones_asked_for_again(
    server: StandInRegistry, make: MakeClient
) -> None:
    server.register("a/b", 20, PLANE)
    server.register("a/b", 21, PLANE, schemaType="JSON")
    client = make(server.url)
    assert await client.registry.fetch_subject("a/b") == (20, 21)
    assert client.registry.known(21) == Schema(21, "JSON", PLANE)
    server.register("a/b", 22, "", schemaType="PROTOBUF")
    assert await client.registry.fetch_subject("a/b") == (20, 21, 22)
    assert server.paths == [
        "/subjects/a%2Fb/versions",
        "/subjects/a%2Fb/versions/1",
        "/subjects/a%2Fb/versions/2",
        "/subjects/a%2Fb/versions",
        "/subjects/a%2Fb/versions/3",
    ]
    assert await client.registry.fetch_subject("nowhere") == ()


@pytest.mark.parametrize("answer", [(200, {}, "<html>"), (404, {}, ""), (200, {}, "{}"), (301, {}, "")])
async def test_a_url_where_something_else_answers_is_refused_at_start(
    answer: tuple[int, dict[str, str], str], server: StandInRegistry, make: MakeClient
) -> None:
    server.answer = answer
    with pytest.raises(ConfigError, match=f"schema_registry: {server.url}: .*response .*Give the URL below which"):
        await make(server.url).registry.start()


async def test_a_proxy_that_stands_in_for_a_registry_keeps_no_worker_from_starting_that_has_schemas(
    server: StandInRegistry, make: MakeClient
) -> None:
    await make(server.url).registry.fetch(1)
    server.answer = 404, {}, "default backend"
    client = make(server.url)
    await client.registry.start()
    assert client.registry.known(1).text == PLANE
    assert client.registry.trouble is not None


@pytest.mark.parametrize("answer", [(401, {}, ""), (503, {}, "")])
async def test_a_registry_that_refuses_or_is_down_is_no_reason_not_to_start(
    answer: tuple[int, dict[str, str], str], server: StandInRegistry, make: MakeClient
) -> None:
    server.answer = answer
    client = make(server.url)
    await client.registry.start()
    assert client.registry.trouble is not None
    server.answer = None

    async def nothing_wrong() -> bool:
        return client.registry.trouble is None

    await until(nothing_wrong, "the registry is seen to be back although nobody needs it")


async def test_a_silent_registry_does_not_hold_up_the_start(
    server: StandInRegistry, make: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "START_TIMEOUT_SECONDS", 0.05)
    server.silent = True
    client = make(server.url)
    await asyncio.wait_for(client.registry.start(), 20)
    assert client.registry.trouble == f"{server.url}: no answer in time"


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        (httpx.BasicAuth("ida", "horse"), "Basic aWRhOmhvcnNl"),
        (Bearer("horse"), "Bearer horse"),
    ],
)
async def test_user_and_password_or_token_are_shown_with_each_request_and_nowhere_else(
    auth: httpx.Auth, header: str, server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url, auth=auth)
    with capture_logs() as logs:
        await client.registry.start()
        await client.registry.fetch(2)
    assert [headers.get("Authorization") for _, headers in server.requests] == [header] * 3
    assert "horse" not in f"{logs} {Access((server.url,), PLAIN, auth)!r}"


async def test_the_latest_of_a_subject_is_of_a_time_after_the_writer_s_schema_was_fetched(
    server: StandInRegistry, make: MakeClient
) -> None:
    server.register("plane", 3, "second")
    client = make(server.url)
    await client.registry.fetch(1)
    with pytest.raises(SchemaNeeded) as needed:
        client.registry.latest("plane", 1)
    assert needed.value.needed == "plane"
    await client.registry.fetch("plane")
    assert client.registry.latest("plane", 1).text == "second"
    assert client.registry.latest("plane", 3).text == "second"
    server.register("plane", 4, "third")
    assert client.registry.latest("plane", 1).text == "second", "nothing says that there is a third"
    await client.registry.fetch(4)
    with pytest.raises(SchemaNeeded):
        client.registry.latest("plane", 4)
    await client.registry.fetch("plane")
    assert client.registry.latest("plane", 4).text == client.registry.latest("plane", 1).text == "third"
    assert server.paths.count("/subjects/plane/versions/latest") == 2


async def test_a_restarted_client_knows_the_latest_as_well_while_the_registry_is_away(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    await client.registry.fetch(2)
    await client.registry.fetch("plane")
    await server.stop()
    again = make(server.url)
    await again.registry.start()
    assert again.registry.latest("plane", 2) == client.registry.latest("plane", 2) == Schema(1, "AVRO", PLANE)
    assert again.registry.describe("plane").startswith("the latest schema of subject plane of the registry http://")


async def test_a_subject_that_is_not_there_is_unknown_for_a_while(server: StandInRegistry, make: MakeClient) -> None:
    client = make(server.url)
    await client.registry.fetch("nowhere")
    with pytest.raises(DecodeError, match=r"latest schema of subject nowhere is not available .*: Subject not found"):
        client.registry.latest("nowhere", 1)
    client.now += UNKNOWN_SECONDS
    with pytest.raises(SchemaNeeded):
        client.registry.latest("nowhere", 1)


async def test_a_lookup_of_the_latest_that_began_before_the_writer_was_known_is_not_the_last_word(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    early = asyncio.ensure_future(client.registry.fetch("plane"))
    await asyncio.sleep(0)
    await client.registry.fetch(2)
    await early
    with pytest.raises(SchemaNeeded):
        client.registry.latest("plane", 2)
    await client.registry.fetch("plane")
    assert client.registry.latest("plane", 2).text == PLANE


async def test_a_schema_is_fetched_by_its_guid_and_known_after_a_restart(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    await client.registry.start()
    server.guids = {str(GUID): 2}
    with pytest.raises(SchemaNeeded):
        client.registry.known(GUID)
    await client.registry.fetch(GUID)
    found = client.registry.known(GUID)
    assert (found.id, found.text, found.references[0].schema.id) == (GUID, OTHER, 1)
    await client.registry.stop()
    await server.stop()
    again = make(server.url)
    await again.registry.start()
    assert again.registry.known(GUID) == found


async def test_a_registry_that_looks_up_no_guids_is_named_and_one_behind_a_proxy_is_waited_for(
    server: StandInRegistry, make: MakeClient
) -> None:
    client = make(server.url)
    await client.registry.start()
    server.guids = None
    await client.registry.fetch(GUID)
    with pytest.raises(DecodeError, match="cannot look up schemas by GUID"):
        client.registry.known(GUID)
    other = UUID(int=2)
    server.answer = (404, {}, "no such path")
    waiting = asyncio.create_task(client.registry.fetch(other))
    await trouble(client, "404 Not Found, which is not a response of a schema registry")
    server.answer, server.guids = None, {str(other): 1}
    await waiting
    assert client.registry.known(other).text == PLANE
