import re
from pathlib import Path

from tablehouse import errors

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def entries() -> list[tuple[str, int | None]]:
    """Return each code that has an entry, with the status beside it; None in the table of 503s, which has no other."""
    section = PAGE.read_text("utf-8").split("\n## A read or write is refused\n")[1].split("\n## ")[0]
    unavailable, _, others = section.partition("| other codes |")
    codes = re.findall(r"^\| `(\w+)` \|", unavailable, re.MULTILINE)
    found: list[tuple[str, int | None]] = [(code, None) for code in codes]
    for line in re.findall(r"^\| (`\w+`.*?) \|", others, re.MULTILINE):
        waiting: list[str] = []
        for code, status in re.findall(r"`(\w+)`|\((\d{3})\)", line):
            if code:
                waiting.append(code)
            else:
                found += [(one, int(status)) for one in waiting]
                waiting = []
        assert not waiting, line
    return found


def test_every_code_has_one_entry_with_its_status_and_no_other_has() -> None:
    expected = sorted((kind.code, kind.status) for kind in errors.RequestError.__subclasses__())
    assert sorted((code, 503 if status is None else status) for code, status in entries()) == expected
