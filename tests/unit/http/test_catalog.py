"""What is answered over HTTP follows the catalog of a running worker."""

from dataclasses import replace

from tablehouse.catalog.spec import Catalog
from tests.support.cluster_fakes import CATALOG, PLANES
from tests.support.http_workers import Reply, Worker, send, share, start_worker

FEWER = Catalog({"numbers": CATALOG.tables["numbers"]})


async def put(worker: Worker) -> Reply:
    body = b'{"seats":55}'
    head = (
        f"PUT /tables/planes/N1 HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return await send(worker.url, head.encode() + b"\r\n\r\n" + body)


async def listed(worker: Worker) -> tuple[list[str], list[str]]:
    """Return the tables of the first page and of the overview."""
    home, overview = await worker.get("/", {"Accept": "application/json"}), await worker.get("/tables")
    return [table["name"] for table in home.json["tables"]], [table["name"] for table in overview.json["tables"]]


async def test_a_table_that_comes_is_listed_read_and_written_and_one_that_goes_is_not_known() -> None:
    worker = await start_worker("a", catalog=FEWER)
    try:
        share([worker], {"a": range(4)})
        assert await listed(worker) == (["numbers"], ["numbers"])
        assert (await worker.get("/tables/planes/N1")).json["code"] == "table_not_found"
        assert (await put(worker)).json["code"] == "table_not_found"

        worker.catalog.swap(CATALOG)
        assert await listed(worker) == (list(CATALOG.tables), list(CATALOG.tables))
        # Neither way to a row: the short one is taken for a request without headers that matter.
        for headers in ({}, {"Tablehouse-Read": "active"}):
            assert (await worker.get("/tables/planes/N1", headers)).json["code"] == "key_not_found"
        assert (await put(worker)).status == 200
        counted = worker.metrics.registry.get_sample_value(
            "tablehouse_read_total", {"table": "planes", "result": "miss"}
        )
        assert counted == 2

        worker.catalog.swap(Catalog({**CATALOG.tables, "planes": replace(PLANES, writable=False)}))
        assert (await put(worker)).json["code"] == "not_writable"
        worker.catalog.swap(FEWER)
        assert await listed(worker) == (["numbers"], ["numbers"])
        assert (await worker.get("/tables/planes/N1")).json["code"] == "table_not_found"
        assert (await put(worker)).json["code"] == "table_not_found"
    finally:
        await worker.server.stop(1.0)
