"""What a person with a browser, or with curl, finds first."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import pytest
import pytest_asyncio

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tests.support.http_workers import Reply, Worker, ask, one_worker, start_worker

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
VOID = {"meta", "link", "br"}


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        yield running


class Parsed(HTMLParser):
    """What is in a page; elements that are not closed in order are an error."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self._open: list[str] = []
        self.feed(reply.body.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element has."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value for name, value in attrs if name == "href" and value}
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that this is the element that was opened last."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note what the page says."""
        self.words += data


def check_page(reply: Reply) -> Parsed:
    """Check that a page is whole, loads nothing, and may run nothing."""
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    parsed = Parsed(reply)
    assert parsed.tags.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    assert not [name for name in parsed.attributes if name.startswith("on") or name in {"src", "style"}]
    assert all(target.startswith(("/", "#")) for target in parsed.links)
    policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["base-uri"], policy["form-action"]) == ("'none'", "'none'", "'none'")
    [style] = re.findall(r"<style>(.*?)</style>", reply.body.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy["style-src"] == f"'sha256-{digest}'"
    return parsed


async def test_a_browser_gets_a_page_whose_links_all_lead_somewhere(worker: Worker) -> None:
    parsed = check_page(await worker.get("/", BROWSER))
    assert "Tablehouse 1.2.3" in parsed.words
    assert {"/tables/planes", "/tables/numbers", "/docs", "/openapi.json", "/cluster", "/readyz"} <= parsed.links
    for target in parsed.links:
        assert (await worker.get(target, BROWSER)).status == 200, target


@pytest.mark.parametrize("headers", [{}, {"Accept": "*/*"}, {"Accept": "application/json"}])
async def test_everything_else_gets_json(worker: Worker, headers: dict[str, str]) -> None:
    reply = await worker.get("/", headers)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert (reply.json["product"], reply.json["version"]) == ("Tablehouse", "1.2.3")
    assert reply.json["tables"][0] == {"name": "planes", "description": "Aircraft", "url": "/tables/planes"}
    targets = [*reply.json["links"].values(), *(table["url"] for table in reply.json["tables"])]
    assert {"/tables", "/docs", "/openapi.json", "/cluster", "/readyz"} <= set(targets)
    for target in targets:
        assert (await worker.get(target)).status == 200, target


async def test_who_takes_neither_is_told_what_there_is(worker: Worker) -> None:
    reply = await worker.get("/", {"Accept": "image/png"})
    assert (reply.status, reply.json["available"]) == (406, ["application/json", "text/html"])


async def test_a_description_is_text_and_no_markup() -> None:
    hostile = '<script>alert("x")</script>\'&'
    table = TableSpec("t", SourceSpec("t-topic", KeySpec("string"), ValueSpec("json")), description=hostile)
    worker = await start_worker("a", Catalog({"t": table}))
    try:
        assert hostile in check_page(await worker.get("/", BROWSER)).words
    finally:
        await worker.server.stop(1.0)


async def test_the_reference_has_every_operation_parameter_and_schema(worker: Worker) -> None:
    parsed = check_page(await worker.get("/docs"))
    document = (await worker.get("/openapi.json")).json
    operations = {
        item[method]["operationId"]
        for item in document["paths"].values()
        for method in item
        if method not in {"parameters", "head"}
    }
    schemas = {f"schema-{name}" for name in document["components"]["schemas"]}
    assert operations | schemas == set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {target.removeprefix("#") for target in parsed.links if target.startswith("#")} <= set(parsed.ids)
    for parameter in document["components"]["parameters"].values():
        assert parameter["name"] in parsed.words
    for path in document["paths"]:
        assert path in parsed.words


FOLDERS = ["/tables", "/tables/planes", "/cluster", "/livez", "/readyz", "/version", "/openapi.json", "/docs"]


@pytest.mark.parametrize("target", FOLDERS)
async def test_a_slash_at_the_end_changes_nothing(worker: Worker, target: str) -> None:
    with_slash, without = await worker.get(target + "/"), await worker.get(target)
    assert (with_slash.status, with_slash.body) == (without.status, without.body)
    assert with_slash.status == 200
    assert (await worker.get(target + "//")).json["code"] == "route_not_found"


async def test_a_slash_after_a_method_of_a_table_changes_nothing_and_after_a_key_there_is_no_route(
    worker: Worker,
) -> None:
    assert (await worker.get("/tables/planes:locate/?key=x")).json["locations"][0]["partition"] == 2
    assert (await worker.get("/tables/planes/x/")).json["code"] == "route_not_found"
    assert (await worker.get("/tables/planes/x%2F")).json["code"] == "key_not_found"
    assert worker.local.asked[-1][2] == b"x/"
    # No key is meant, so nothing is written.
    refused = await worker.get("/tables/planes/", method="DELETE")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert worker.source.records == []


async def test_probes_take_a_slash_at_the_end_too() -> None:
    async with one_worker(probe_port=0) as worker:
        assert worker.server.bound.probe_url is not None
        assert (await ask(worker.server.bound.probe_url, "/livez/")).status == 200
