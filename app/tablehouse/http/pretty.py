"""JSON text with a line for each member and element, in which every value is written as it was."""

import re

#: Spaces of a level, and the levels after which lines are not indented further: text may be nested 500 deep.
_SPACES = 2
_MAX_LEVELS = 40

_NEW_LINES = [b"\n" + b" " * _SPACES * level for level in range(_MAX_LEVELS + 1)]

#: A bracket, a comma, a colon, a string, or a number or word. `cut` is the end of the text inside a string: empty, or a
#: backslash whose character is still to come.
_TOKEN = re.compile(rb'[\[\]{},:]|"[^"\\]*(?:\\.[^"\\]*)*(?:"|(?P<cut>\\?\Z))|[^\s\[\]{},:"]+', re.DOTALL)
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*(?:"|(?P<cut>\\?\Z))', re.DOTALL)


class PrettyJson:
    """Indents a valid JSON text that comes in pieces."""

    def __init__(self) -> None:
        self._level = 0
        #: Whether the last token was an opening bracket.
        self._opened = False
        self._in_string = False
        #: A backslash whose character is still to come.
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the next piece, indented."""
        text, position = self._kept + piece, 0
        made: list[bytes] = []
        if self._in_string:
            rest = _REST_OF_STRING.match(text)
            if rest is not None:
                made.append(self._string(rest))
                position = rest.end()
        for match in _TOKEN.finditer(text, position):
            token = match[0]
            if token in {b"]", b"}"}:
                self._level -= 1
                if not self._opened:
                    made.append(self._new_line())
                self._opened = False
                made.append(token)
                continue
            if self._opened:
                made.append(self._new_line())
                self._opened = False
            if token in {b"[", b"{"}:
                self._level += 1
                self._opened = True
                made.append(token)
            elif token == b",":
                made += (token, self._new_line())
            elif token == b":":
                made.append(b": ")
            else:
                made.append(self._string(match) if token.startswith(b'"') else token)
        return b"".join(made)

    def end(self) -> bytes:
        """Return the end of the last line."""
        return b"\n"

    def _string(self, match: re.Match[bytes]) -> bytes:
        """Return what there is of a string, or of the rest of one, and note whether the next piece goes on with it."""
        cut = match["cut"]
        self._in_string = cut is not None
        self._kept = cut or b""
        return match[0][: -len(cut)] if cut else match[0]

    def _new_line(self) -> bytes:
        return _NEW_LINES[min(self._level, _MAX_LEVELS)]
