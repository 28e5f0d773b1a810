import inspect
import re
from pathlib import Path

from tablehouse import errors

DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"


def subclasses(kind: type[errors.TablehouseError]) -> list[type[errors.TablehouseError]]:
    direct = kind.__subclasses__()
    return direct + [below for child in direct for below in subclasses(child)]


def rows() -> dict[str, tuple[str, str]]:
    found = re.findall(r"^\| `(\w+)` \| (\d{3}) \| (yes|no) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {code: (status, retryable) for code, status, retryable in found}


def test_every_code_is_documented_with_its_status_and_whether_a_retry_helps() -> None:
    assert rows() == {
        kind.code: (str(kind.status), "yes" if kind.retryable else "no")
        for kind in errors.RequestError.__subclasses__()
    }


def test_the_drawing_of_the_error_tree_is_the_tree() -> None:
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    drawn: list[tuple[int, str, str]] = []
    for line in drawing.splitlines():
        match = re.fullmatch(r"    ([ |]*)(?:\|--|`--)? ?(\w+)\s*(.*)", line)
        assert match, line
        drawn.append((line.index(match[2]), match[2], match[3]))
    parents: dict[str, str] = {}
    open_at: list[tuple[int, str]] = []
    for depth, name, _ in drawn:
        while open_at and open_at[-1][0] >= depth:
            open_at.pop()
        if open_at:
            parents[name] = open_at[-1][1]
        open_at.append((depth, name))
    here = [kind for kind in subclasses(errors.TablehouseError) if kind.__module__ == errors.__name__]
    assert parents == {kind.__name__: kind.__bases__[0].__name__ for kind in here}
    said = {name: text for _, name, text in drawn}
    for kind in errors.RequestError.__subclasses__():
        assert said[kind.__name__] == f"{kind.status} {kind.code}"


def test_codes_are_unique_and_every_class_is_public() -> None:
    kinds = errors.RequestError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(inspect.getdoc(kind) for kind in kinds)
