"""Random changes of tables in PostgreSQL, as SQL; and what their rows are then, as PostgreSQL itself says."""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tablehouse.testing.postgres import Postgres

#: A column of every type that matters; `id` is made beyond what a double holds.
COLUMNS = """
    id bigint PRIMARY KEY, name text NOT NULL, amount numeric(24, 4), price numeric, seen timestamptz,
    local timestamp(6), day date, at time(6), active boolean NOT NULL, raw bytea,
    reference uuid, mood mood, big bigint, note text"""

_ALPHABET = ["a", "B", " ", "'", '"', "\\", "é", "漢", "😀", "\n", "\t", "{", "}", "%", "\u2028", "\x1f", "0"]
_MIN_INT64, _MAX_INT64 = -(2**63), 2**63 - 1


@dataclass
class Keys:
    """Which keys of a table have a row now, and which had one at some time; a draw never depends on a set's order."""

    live: dict[Any, None] = field(default_factory=dict)
    known: dict[Any, None] = field(default_factory=dict)

    @property
    def gone(self) -> list[Any]:
        """The keys that had a row and have none."""
        return [key for key in self.known if key not in self.live]

    def add(self, key: Any) -> None:
        """Take note of a new row."""
        self.live[key] = self.known[key] = None

    def remove(self, key: Any) -> None:
        """Take note of a row that is gone."""
        del self.live[key]


class Wide:
    """Changes of a table with the columns of COLUMNS, and a key of one column."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.keys = Keys()
        self._chance = chance

    def insert(self) -> str:
        """Return a new row, now and then under a key that had one before."""
        key = self._new_key()
        self.keys.add(key)
        return f"INSERT INTO {self.name} VALUES ({key}, {', '.join(self._values().values())});"

    def change(self) -> str:
        """Return an insert, an update of some columns, a delete, or another key for a row."""
        draw = self._chance.random()
        if draw < 0.3 or not self.keys.live:
            return self.insert()
        key = self._chance.choice(list(self.keys.live))
        if draw < 0.8:
            values = self._values()
            some = self._chance.sample(sorted(values), self._chance.randint(1, 5))
            return f"UPDATE {self.name} SET {', '.join(f'{one} = {values[one]}' for one in some)} WHERE id = {key};"
        self.keys.remove(key)
        if draw < 0.93:
            return f"DELETE FROM {self.name} WHERE id = {key};"
        other = self._new_key()
        self.keys.add(other)
        return f"UPDATE {self.name} SET id = {other} WHERE id = {key};"

    def _new_key(self) -> int:
        if self._chance.random() < 0.2 and (gone := self.keys.gone):
            return int(self._chance.choice(gone))
        while (key := self._integer()) in self.keys.known:
            pass
        return key

    def _integer(self) -> int:
        return self._chance.choice([self._chance.randint(1, 100_000), self._chance.randint(_MIN_INT64, _MAX_INT64)])

    def _values(self) -> dict[str, str]:
        chance = self._chance
        digits, point = str(chance.randint(0, 10**24 - 1)), chance.randint(0, 12)
        moment = f"{chance.randint(1800, 2200)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        time = f"{chance.randint(0, 23):02}:{chance.randint(0, 59):02}:{chance.randint(0, 59):02}"
        time += chance.choice(["", f".{chance.randint(0, 999_999):06}"])
        optional = {
            "amount": f"{chance.choice(['', '-'])}{digits[:-4] or '0'}.{digits[-4:]}",
            "price": f"{digits[:point] or '0'}.{digits[point:] or '0'}",
            "seen": f"'{moment} {time}{chance.choice(['Z', '+05:30', '-08:00'])}'",
            "local": f"'{moment} {time}'",
            "day": f"'{moment}'",
            "at": f"'{time}'",
            "raw": f"'\\x{chance.randbytes(chance.randint(0, 20)).hex()}'",
            "reference": f"'{chance.randbytes(16).hex()}'",
            "mood": chance.choice(["'glad'", "'sad'", "'très content'"]),
            "big": str(self._integer()),
            "note": _literal(chance),
        }
        values = {name: "NULL" if chance.random() < 0.15 else value for name, value in optional.items()}
        values |= {"name": _literal(chance), "active": chance.choice(["true", "false"])}
        order = [line.split()[0] for line in COLUMNS.replace("numeric(24, 4)", "numeric").split(",")]
        return {name: values[name] for name in order if name != "id"}


class Pairs:
    """Changes of a table whose key has two columns: warehouse and article."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.keys = Keys()
        self._chance = chance

    def insert(self) -> str:
        """Return a new row."""
        key = self._new_key()
        self.keys.add(key)
        return f"INSERT INTO {self.name} VALUES ({key[0]}, {_quoted(key[1])}, {self._chance.randint(0, 999)});"

    def change(self) -> str:
        """Return an insert, an update, a delete, or another key for a row."""
        draw = self._chance.random()
        if draw < 0.3 or not self.keys.live:
            return self.insert()
        key = self._chance.choice(list(self.keys.live))
        where = f"WHERE warehouse = {key[0]} AND article = {_quoted(key[1])};"
        if draw < 0.7:
            return f"UPDATE {self.name} SET quantity = {self._chance.randint(0, 999)} {where}"
        self.keys.remove(key)
        if draw < 0.85:
            return f"DELETE FROM {self.name} {where}"
        other = self._new_key()
        self.keys.add(other)
        return f"UPDATE {self.name} SET warehouse = {other[0]}, article = {_quoted(other[1])} {where}"

    def _new_key(self) -> tuple[int, str]:
        if self._chance.random() < 0.2 and (gone := self.keys.gone):
            warehouse, article = self._chance.choice(gone)
            return int(warehouse), str(article)
        while (key := (self._chance.randint(1, 9), _text(self._chance))) in self.keys.known:
            pass
        return key


def transactions(tables: Mapping[str, Wide | Pairs], count: int, chance: random.Random) -> Iterator[tuple[int, str]]:
    """Yield transactions of some changes each until there were `count`; some of them are rolled back, and not counted.

    Each comes with the number of its changes.
    """
    done = 0
    while done < count:
        most = min(chance.randint(1, 20), count - done)
        if chance.random() < 0.1:
            before = {name: (dict(table.keys.live), dict(table.keys.known)) for name, table in tables.items()}
            changes = [chance.choice(list(tables.values())).change() for _ in range(most)]
            for name, table in tables.items():
                table.keys.live, table.keys.known = before[name]
            yield 0, "\n".join(["BEGIN;", *changes, "ROLLBACK;"])
            continue
        changes = [chance.choice(list(tables.values())).change() for _ in range(most)]
        done += most
        yield most, "\n".join(["BEGIN;", *changes, "COMMIT;"])


def rows_of(postgres: Postgres, table: str, key: str, columns: Mapping[str, str]) -> dict[Any, Any]:
    """Return every row of a table by the JSON of its key; `columns` has the expression of each member."""
    members = ", ".join(f"'{name}', {expression}" for name, expression in columns.items())
    printed = postgres.run(f"SELECT json_build_array({key}, json_build_object({members}))::text FROM {table}")
    rows = [json.loads(line) for line in printed.rstrip("\n").split("\n") if line]
    return {json.dumps(key, ensure_ascii=False, separators=(",", ":")): row for key, row in rows}


#: How Debezium writes these columns as JSON without schemas, and decimals as strings.
PLAIN = {
    "id": "id",
    "name": "name",
    "amount": "amount::text",
    "price": "price::text",
    "seen": """to_char(seen AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    "local": "(extract(epoch FROM local) * 1000000)::bigint",
    "day": "day - date '1970-01-01'",
    "at": "(extract(epoch FROM at) * 1000000)::bigint",
    "active": "active",
    "raw": "replace(encode(raw, 'base64'), E'\\n', '')",
    "reference": "reference",
    "mood": "mood",
    "big": "big",
    "note": "note",
}

#: How rows show them when the events have schemas; of a numeric without a scale Debezium takes trailing zeros off then.
WITH_SCHEMA = PLAIN | {
    "price": "trim_scale(price)::text",
    "local": """to_char(local, 'YYYY-MM-DD"T"HH24:MI:SS.US')""",
    "day": "day::text",
    "at": "to_char('2000-01-01'::date + at, 'HH24:MI:SS.US')",
}


def _text(chance: random.Random) -> str:
    return "".join(chance.choices(_ALPHABET, k=chance.randint(1, 12)))


def _literal(chance: random.Random) -> str:
    return _quoted(_text(chance))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
