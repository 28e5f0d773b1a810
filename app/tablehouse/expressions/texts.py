"""Functions of text. Positions count characters from 1, and results have a limit, so that no row costs much memory."""

from tablehouse.expressions.errors import EvaluationError

#: Characters of a text that an expression makes; members of a row may be longer.
MAX_TEXT_CHARACTERS = 100_000


def require_size(characters: int) -> None:
    """Raise EvaluationError if a text to be made is too long."""
    if characters > MAX_TEXT_CHARACTERS:
        raise EvaluationError(f"a text has more than {MAX_TEXT_CHARACTERS:,} characters")


class _SimpleCase(dict[int, str]):
    """The characters that case conversion replaces one by one, as DuckDB does; filled when they are met."""

    def __init__(self, convert: str) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, code: int) -> str:
        character = chr(code)
        converted: str = getattr(character, self._convert)()
        # Python turns some characters into several, such as the German sharp s into SS.
        self[code] = converted if len(converted) == 1 else character
        return self[code]


_LOWER, _UPPER = _SimpleCase("lower"), _SimpleCase("upper")


def lower(text: str) -> str:
    """Return the text in lower case, with as many characters as before."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def upper(text: str) -> str:
    """Return the text in upper case, with as many characters as before."""
    return text.upper() if text.isascii() else text.translate(_UPPER)


def substring(text: str, start: int, length: int | None = None) -> str:
    """Return `length` characters from a position, or all from there on."""
    if start < 1:
        raise EvaluationError("substring begins at position 1 or later")
    if length is None:
        return text[start - 1 :]
    if length < 0:
        raise EvaluationError("substring takes no negative length")
    return text[start - 1 : start - 1 + length]


def left(text: str, count: int) -> str:
    """Return the first characters, or with a negative count all but the last ones."""
    return text[:count]


def right(text: str, count: int) -> str:
    """Return the last characters, or with a negative count all but the first ones."""
    return text[-count:] if count else ""


def trim(text: str, characters: str = " ") -> str:
    """Return the text without some characters at both ends."""
    return text.strip(characters)


def trim_left(text: str, characters: str = " ") -> str:
    """Return the text without some characters at its beginning."""
    return text.lstrip(characters)


def trim_right(text: str, characters: str = " ") -> str:
    """Return the text without some characters at its end."""
    return text.rstrip(characters)


def replace(text: str, old: str, new: str) -> str:
    """Return the text with every occurrence of `old` replaced; an empty one occurs nowhere."""
    if not old:
        return text
    if len(new) > len(old):
        require_size(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def position_of(text: str, part: str) -> int:
    """Return the position of the first occurrence; 0 if there is none."""
    return text.find(part) + 1


def starts_with(text: str, beginning: str) -> bool:
    """Return whether the text begins with another one."""
    return text.startswith(beginning)


def repeat(text: str, count: int) -> str:
    """Return the text that many times; none if the count is negative."""
    require_size(len(text) * count)
    return text * count


def pad_left(text: str, length: int, fill: str) -> str:
    """Return the text with `length` characters: filled at its beginning, or cut off at its end."""
    return _filling(text, length, fill) + text[: max(length, 0)]


def pad_right(text: str, length: int, fill: str) -> str:
    """Return the text with `length` characters: filled or cut off at its end."""
    return text[: max(length, 0)] + _filling(text, length, fill)


def _filling(text: str, length: int, fill: str) -> str:
    missing = length - len(text)
    if missing <= 0:
        return ""
    require_size(length)
    if not fill:
        raise EvaluationError("a text cannot be filled up with an empty one")
    return (fill * (missing // len(fill) + 1))[:missing]


def split_part(text: str, separator: str, number: int) -> str:
    """Return a part of the text between separators, from 1; empty beyond the last one."""
    if number < 1:
        raise EvaluationError("split_part counts parts from 1")
    if not separator:
        raise EvaluationError("split_part takes no empty separator")
    parts = text.split(separator, min(number, len(text)))
    return parts[number - 1] if number <= len(parts) else ""
