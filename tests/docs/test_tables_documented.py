import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from tablehouse.catalog.load import load_catalog
from tablehouse.formats.spellings import SPELLINGS, Write

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def schema() -> dict[str, Any]:
    text = files("tablehouse.catalog").joinpath("tables.schema.json").read_text(encoding="utf-8")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def section(title: str) -> str:
    page = PAGE.read_text(encoding="utf-8")
    return re.split(r"^##+ ", page.split(f"{title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))


def test_every_field_of_a_table_and_of_a_source_is_documented_and_no_other() -> None:
    definitions = schema()["$defs"]
    assert first_cells(section("## A table")) == set(definitions["table"]["properties"])
    assert first_cells(section("## A source")) == set(definitions["source"]["properties"])


def test_every_key_format_value_format_and_partitioner_is_documented_and_no_other() -> None:
    definitions = schema()["$defs"]
    with_members = {"{format: json, fields: [a, b]}", "{format: json, field: id}"}
    assert first_cells(section("### Keys")) == {*definitions["keyFormat"]["enum"], *with_members}
    assert first_cells(section("### Partitioners")) == set(definitions["source"]["properties"]["partitioner"]["enum"])
    assert first_cells(section("### Values")) == set(definitions["valueFormat"]["enum"])


def test_every_spelling_is_documented_with_what_it_writes() -> None:
    page = section("### Spellings of JSON keys")
    assert first_cells(page) == set(SPELLINGS)
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    writes: dict[str, Write] = dict(SPELLINGS.items())
    for name, _, *examples in rows:
        write = writes[name.strip("`")]
        written = [write([7], ("id",)), *(write([scalar], ()) for scalar in ("Zürich", "<a/b>", "😀", 0.00015))]
        assert [example.strip("`") for example in examples] == [wire.decode() for wire in written]


def test_the_example_of_the_page_is_a_file_that_works(tmp_path: Path) -> None:
    example = PAGE.read_text(encoding="utf-8").split("```yaml\n", 1)[1].split("```", 1)[0]
    path = tmp_path / "tables.yaml"
    path.write_text(example, encoding="utf-8")
    assert list(load_catalog(path).tables) == ["planes", "carriers_of_flights"]
