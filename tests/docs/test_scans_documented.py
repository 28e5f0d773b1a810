"""The curl lines of the page about scans, asked of a worker with the rows that the page speaks of."""

import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import pytest_asyncio

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.expressions.dates import FIELDS, UNITS
from tablehouse.expressions.expression import parse_condition
from tablehouse.expressions.functions import FUNCTIONS, SPECIAL
from tablehouse.expressions.words import MAX_CHARACTERS, MAX_TOKENS
from tablehouse.formats.keys import key_format
from tablehouse.http.consistency import PARAMETERS
from tablehouse.http.scan import SCAN_PARAMETERS
from tablehouse.routing.cluster import snapshot_of
from tablehouse.stores.rows import Row
from tests.support.cluster_fakes import Placed
from tests.support.http_workers import Worker, start_worker

PAGE = (Path(__file__).parents[2] / "docs" / "scans.md").read_text("utf-8")
_EXAMPLE = re.compile(r"^(curl .+)\n# (\d{3}) (.+)$", re.MULTILINE)
EXAMPLES = _EXAMPLE.findall(PAGE)

WEATHER = KeySpec("json", ("origin", "hour"))
CATALOG = Catalog(
    {
        "planes": TableSpec("planes", SourceSpec("planes", KeySpec("string"), ValueSpec("json"))),
        "weather": TableSpec("weather", SourceSpec("weather", WEATHER, ValueSpec("json"))),
    }
)
ROWS = {
    "planes": {
        "N10156": '{"seats":55}',
        "N102UW": '{"seats":182}',
        "N103US": '{"seats":182}',
        "N104UW": '{"seats":379}',
    },
    "weather": {
        '{"origin":"EWR","hour":6}': '{"temp":39.0}',
        '{"origin":"EWR","hour":15}': '{"temp":41.5}',
        '{"origin":"LGA","hour":6}': '{"temp":39.9}',
    },
}


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    running = await start_worker("a", CATALOG)
    placed = Placed("a", running.internal, {name: range(4) for name in ROWS})
    running.view.swap(snapshot_of(7, dict.fromkeys(ROWS, 4), [placed]))
    for name, rows in ROWS.items():
        keys = key_format(CATALOG.tables[name].source.key)
        for number, (text, value) in enumerate(rows.items()):
            running.local.rows[name, number % 4, keys.parse(text.encode()).stored] = Row(value.encode(), 0, number)
    yield running
    await running.server.stop(1.0)


def request_of(command: str) -> tuple[str, dict[str, str]]:
    """Return the target and the headers that a line of curl asks for."""
    words = iter(shlex.split(command)[1:])
    target, headers, parameters = "", {}, []
    for word in words:
        match word:
            case "--header":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "--data-urlencode":
                name, _, value = next(words).partition("=")
                parameters.append((name, value))
            case "--get":
                pass
            case _:
                url = urlsplit(word)
                target = url.path + (f"?{url.query}" if url.query else "")
    return target + (f"?{urlencode(parameters)}" if parameters else ""), headers


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 7
    assert len(EXAMPLES) == len(re.findall(r"^curl ", PAGE, re.MULTILINE))


@pytest.mark.parametrize(("command", "status", "beginning"), EXAMPLES)
async def test_an_example_of_the_page_gives_what_it_says(
    worker: Worker, command: str, status: str, beginning: str
) -> None:
    reply = await worker.get(*request_of(command))
    assert (str(reply.status), reply.body.decode()[: len(beginning)]) == (status, beginning)


def test_the_json_of_the_page_is_json() -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    assert all(json.loads(block)["partitions"] is not None for block in blocks)


def test_every_parameter_of_a_scan_is_documented() -> None:
    for name in SCAN_PARAMETERS | PARAMETERS:
        assert re.search(rf"`{name}(=[^`]*)?`", PAGE), name


def test_the_conditions_of_the_page_are_expressions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text("utf-8")
    (block,) = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    origins = set().union(*(parse_condition(line).origins for line in block.splitlines()))
    assert origins == {"$key"}


def test_every_function_and_type_of_expressions_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text("utf-8")
    for name in {*FUNCTIONS, *SPECIAL}:
        assert f"`{name}`" in page, name
    for name in ("BIGINT", "BOOLEAN", "DATE", "DECIMAL(p, s)", "DOUBLE", "TIMESTAMP", "VARCHAR"):
        assert name in page, name
    for name in {*FIELDS, *UNITS}:
        assert f"`{name}`" in page, name
    assert f"{MAX_CHARACTERS:,} characters" in page
    assert f"{MAX_TOKENS:,} words" in page
