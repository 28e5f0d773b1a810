"""A cache for results and failures of work on schemas, which would otherwise be repeated for each record."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

from tablehouse.formats.errors import DecodeError

#: The number of results kept for each function.
_KEPT = 1024

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


def remembered(make: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Return a function that calls `make` once for each set of arguments, and keeps its result or DecodeError."""

    def outcome(*args: _Given.args, **kwargs: _Given.kwargs) -> tuple[_Made] | str:
        try:
            return (make(*args, **kwargs),)
        except DecodeError as error:
            return str(error)

    kept = cast("Callable[_Given, tuple[_Made] | str]", lru_cache(_KEPT)(outcome))

    @wraps(make)
    def again(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        found = kept(*args, **kwargs)
        if isinstance(found, str):
            raise DecodeError(found)
        return found[0]

    return again
