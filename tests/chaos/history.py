"""What one client saw: an answer a line, as JSON, in a file that outlives the client."""

from pathlib import Path

import msgspec


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer, or the lack of one.

    Times are seconds of the machine's monotonic clock, which all its processes share. Status 0 stands for a connection
    that failed or took too long, and `error` says how. Without their header, partition and position are -2, and the
    others are empty. `query` is what was asked for beyond the key, `token` the positions sent as `min_position`.
    `refused` says that nobody listened. `cut` is not negative when a connection broke without an answer that was made
    for this question, whether or not a second one brought it: how many seconds lay between the attempt to connect and
    the request being sent.
    """

    asked: float
    answered: float
    url: str
    table: str
    key: str
    status: int
    query: str = ""
    token: str = ""
    error: str = ""
    refused: bool = False
    cut: float = -1.0
    code: str = ""
    retry_after: str = ""
    role: str = ""
    partition: int = -2
    position: int = -2
    lag: str = ""
    staleness_ms: str = ""
    served_by: str = ""
    etag: str = ""
    body: str = ""

    @property
    def plain(self) -> bool:
        """Say whether nothing was asked for but the key."""
        return not self.query and not self.token

    @property
    def least(self) -> int:
        """The position asked for in the partition that answered; -1 when none was."""
        places = [place.split(":") for place in self.token.split(",") if place]
        return max((int(offset) for partition, offset in places if int(partition) == self.partition), default=-1)


class Recording:
    """A history that may still be written to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.answers: list[Answer] = []

    def refresh(self) -> list[Answer]:
        """Read what was added, and return everything."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b"\n")
            if whole:
                self._read += len(whole) + 1
                self.answers += [msgspec.json.decode(line, type=Answer) for line in whole.split(b"\n")]
        return self.answers
