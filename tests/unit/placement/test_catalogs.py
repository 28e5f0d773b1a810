from pathlib import Path

from tablehouse.catalog.fingerprint import catalog_digest, table_digests
from tablehouse.catalog.load import load_catalog
from tablehouse.placement.assign import assignments, place
from tablehouse.placement.catalogs import differences, in_use
from tablehouse.placement.wire import (
    CatalogInUse,
    MemberMetadata,
    decode_assignment,
    decode_metadata,
    encode_assignments,
    encode_metadata,
)
from tests.support.worker import table, tables

PLANES, AIRLINES = table("planes", "planes"), table("airlines", "airlines")


def member(folder: Path, name: str, *entries: str, tells: bool = True) -> MemberMetadata:
    file = folder / f"{name}.yaml"
    file.write_text(tables(*entries), "utf-8")
    catalog = load_catalog(file)
    told = table_digests(catalog) if tells else {}
    return MemberMetadata(name, 1, f"http://{name}:1", catalog_digest(catalog), {}, tables=told)


def test_alike_catalogs_are_not_told_whatever_their_order_and_descriptions(tmp_path: Path) -> None:
    described = PLANES + "    description: all of them\n"
    alike = {"a": member(tmp_path, "a", PLANES, AIRLINES), "b": member(tmp_path, "b", AIRLINES, described)}

    assert in_use(alike) == []


def test_each_worker_learns_by_the_assignment_which_tables_differ_on_which_other(tmp_path: Path) -> None:
    joining = {
        "m1": member(tmp_path, "a", PLANES, AIRLINES),
        "m2": member(tmp_path, "b", PLANES, AIRLINES),
        "m3": member(tmp_path, "c", table("planes", "planes", value="string"), table("weather", "weather")),
        "m4": member(tmp_path, "d", PLANES, tells=False),
    }
    members = {name: decode_metadata(encode_metadata(metadata)) for name, metadata in joining.items()}
    placed = place(members, {"planes": 2}, {"planes": 1}, 10)
    sent = encode_assignments(assignments(members, placed, {"planes": 2}))
    told = {name: decode_assignment(data).catalogs for name, data in sent.items()}

    assert differences(members["m1"].tables, told["m1"]) == {
        "c": "table planes is defined differently there; table airlines is missing there; table weather is "
        "missing here",
        "d": "it does not report its tables",
    }
    assert set(differences(members["m3"].tables, told["m3"])) == {"a", "b", "d"}


def test_a_few_tables_are_named_and_the_rest_are_counted() -> None:
    theirs = {f"t{number}": b"1" for number in range(8)}

    assert differences({}, [CatalogInUse(["w"], theirs)]) == {
        "w": "tables t0, t1, t2, t3, t4 and 3 more are missing here"
    }
