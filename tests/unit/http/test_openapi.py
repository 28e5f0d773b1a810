import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
import pytest_asyncio

from tablehouse import errors
from tablehouse.formats.partitioners import partition_of
from tablehouse.http.consistency import HEADERS
from tablehouse.stores.rows import Row
from tests.support.cluster_fakes import status
from tests.support.http_workers import Worker, one_worker, public_routes, send


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        running.local.states = [status(partition=number) for number in range(4)]
        running.local.rows["planes", partition_of("murmur2", b"x", 4), b"x"] = Row(b"{}", 0, 1)
        yield running


async def document(worker: Worker) -> dict[str, Any]:
    reply = await worker.get("/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    read: dict[str, Any] = reply.json
    return read


def references(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(read: Mapping[str, Any], reference: str) -> Any:
    node: Any = read
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


async def test_the_document_describes_every_route_and_no_other(worker: Worker) -> None:
    paths = (await document(worker))["paths"]
    described = {path: {method.upper() for method in item if method != "parameters"} for path, item in paths.items()}
    assert described == {route.template: set(route.methods) for route in public_routes().all()}


async def test_every_parameter_of_a_route_is_described(worker: Worker) -> None:
    read = await document(worker)
    for route in public_routes().all():
        item = read["paths"][route.template]
        for method, operation in route.operations.items():
            listed = [*item.get("parameters", ()), *item[method.lower()].get("parameters", ())]
            described = [resolve(read, p["$ref"]) for p in listed]
            assert {p["name"] for p in described if p["in"] == "query"} == operation.parameters
            asked = {p["name"] for p in described if p["in"] == "header" and p["name"].startswith("Tablehouse-")}
            assert asked == {HEADERS[name] for name in operation.parameters & set(HEADERS)}
            assert {p["name"] for p in described if p["in"] == "path"} == set(re.findall(r"{(\w+)}", route.template))


async def test_every_reference_leads_somewhere_and_every_component_is_used(worker: Worker) -> None:
    read = await document(worker)
    used = set(references(read))
    for reference in used:
        assert resolve(read, reference)
    defined = {f"#/components/{kind}/{name}" for kind, named in read["components"].items() for name in named}
    assert defined == used


async def test_operation_ids_are_unique(worker: Worker) -> None:
    paths = (await document(worker))["paths"].values()
    ids = [item[method]["operationId"] for item in paths for method in item if method != "parameters"]
    assert len(ids) == len(set(ids))


async def test_the_codes_are_those_that_callers_can_get(worker: Worker) -> None:
    codes = (await document(worker))["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert set(codes) == {kind.code for kind in errors.RequestError.__subclasses__()} - {
        # Between workers only.
        errors.NotOwner.code,
        errors.Unauthenticated.code,
    }


TARGETS = [
    ("/tables", "/tables"),
    ("/tables/planes", "/tables/{table}"),
    ("/tables/planes/x", "/tables/{table}/{key}"),
    ("/tables/planes/y", "/tables/{table}/{key}"),
    ("/tables/planes:get?key=x", "/tables/{table}:get"),
    ("/tables/planes/x?read=active&max_lag=2", "/tables/{table}/{key}"),
    ("/tables/planes/x?min_position=0:1000,1:1000,2:1000,3:1000&timeout_ms=0", "/tables/{table}/{key}"),
    ("/tables/planes:get?key=x&read=all", "/tables/{table}:get"),
    ("/tables/planes:locate?key=x", "/tables/{table}:locate"),
    ("/tables/planes:scan", "/tables/{table}:scan"),
    ("/tables/planes:scan?limit=0", "/tables/{table}:scan"),
    ("/tables/planes:scan?partial=true&min_position=0:1000&timeout_ms=0", "/tables/{table}:scan"),
    ("/tables/planes:count?prefix=x", "/tables/{table}:count"),
    ("/tables/nope", "/tables/{table}"),
    ("/cluster", "/cluster"),
    ("/cluster?x=1", "/cluster"),
    ("/livez", "/livez"),
    ("/readyz?verbose", "/readyz"),
    ("/metrics", "/metrics"),
    ("/version", "/version"),
    ("/openapi.json", "/openapi.json"),
]


async def test_a_batch_is_as_the_document_says(worker: Worker) -> None:
    read = await document(worker)
    operation = read["paths"]["/tables/{table}:batch-get"]["post"]
    asked = {"keys": ["x", "y", 5]}
    schema = {**operation["requestBody"]["content"]["application/json"]["schema"], "components": read["components"]}
    jsonschema.Draft202012Validator(schema).validate(asked)
    body = msgspec.json.encode(asked)
    head = b"POST /tables/planes:batch-get HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    reply = await send(worker.url, head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    content = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**content, "components": read["components"]}).validate(reply.json)
    assert [row.get("error", {}).get("code") for row in reply.json["rows"]] == [None, "key_not_found", "invalid_key"]


async def test_each_line_of_a_stream_is_as_the_document_says(worker: Worker) -> None:
    read = await document(worker)
    content = read["paths"]["/tables/{table}:scan"]["get"]["responses"]["200"]["content"]
    schema = content["application/x-ndjson"]["schema"]
    validator = jsonschema.Draft202012Validator({**schema, "components": read["components"]})
    reply = await worker.get("/tables/planes:scan", {"Accept": "application/x-ndjson"})
    lines = [msgspec.json.decode(line) for line in reply.body.splitlines()]
    assert len(lines) == 2
    for line in [*lines, {"error": (await worker.get("/tables/nope")).json}]:
        validator.validate(line)


@pytest.mark.parametrize(("target", "template"), TARGETS)
async def test_answers_are_as_the_document_says(worker: Worker, target: str, template: str) -> None:
    read = await document(worker)
    reply = await worker.get(target)
    responses = read["paths"][template]["get"]["responses"]
    response = responses.get(str(reply.status), responses["default"])
    if "$ref" in response:
        response = resolve(read, response["$ref"])
    media_type = reply.headers["content-type"].partition(";")[0]
    assert media_type in response["content"]
    if media_type.endswith("json"):
        schema = {**response["content"][media_type]["schema"], "components": read["components"]}
        jsonschema.Draft202012Validator(schema).validate(msgspec.json.decode(reply.body))
    for name in response.get("headers", ()):
        # A copy that refuses does not count what it has rejected.
        if name == "Tablehouse-Rejected-Records" and reply.status == 503:
            continue
        if reply.status in {200, 404, 503} and "table_not_found" not in reply.body.decode():
            assert name.lower() in reply.headers
