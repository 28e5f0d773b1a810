"""The messages of a link, as values of MessagePack: questions to a worker, and what it answers.

Members are only ever added at the end, with defaults, so that workers of two versions understand each other. What an
older worker would misread changes the version in handshake.py.
"""

from collections.abc import Sequence

import msgspec

from tablehouse.model import Consistency
from tablehouse.routing.error_values import ErrorValue
from tablehouse.routing.ports import Condition, Wanted
from tablehouse.tasks.counting import CountRange, CountResult
from tablehouse.tasks.questions import Applied, Get
from tablehouse.tasks.ranges import Range, RangeResult
from tablehouse.tasks.reads import ReadResult

#: The questions about one partition that cross a link, and what answers them.
Crossing = Get | Applied | Range | CountRange
Result = ReadResult | RangeResult | CountResult | None


class Agreed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What both workers must mean the same by: a table's definition, and the count that keys are hashed with.

    generation is the asking worker's, for logs.
    """

    table: str
    digest: str
    partitions: int
    generation: int


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A question about one partition. timeout and wait are in seconds, as in Terms; no consistency is the default's."""

    number: int
    agreed: Agreed
    partition: int
    question: Crossing
    timeout: float
    consistency: Consistency | None = None
    wait: float = 0.0


class AskMany(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Keys of several partitions, each a MultiGet."""

    number: int
    agreed: Agreed
    wanted: Sequence[Wanted]
    timeout: float
    consistency: Consistency | None = None
    wait: float = 0.0


class Write(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A conditional write, for the owner of the partition; see ConditionalWrite."""

    number: int
    agreed: Agreed
    partition: int
    stored_key: bytes
    key: bytes
    value: bytes | None
    condition: Condition
    timeout: float


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Nobody waits for the answer to a question any more."""

    number: int


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Asks for a Pong. It is the first message on every link, and proves who asks where workers share a secret."""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The result of an Ask."""

    number: int
    result: Result


class Slices(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """What answers an AskMany: routing/slices.py."""

    number: int
    slices: bytes


class Written(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The offset of the record of a Write."""

    number: int
    offset: int


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Why there is no answer."""

    number: int
    error: ErrorValue


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The answer to a Ping."""


Question = Ask | AskMany | Write | Cancel | Ping
Reply = Answer | Slices | Written | Refused | Pong

encode = msgspec.msgpack.Encoder().encode
_questions: msgspec.msgpack.Decoder[list[Question]] = msgspec.msgpack.Decoder(list[Question])
_replies: msgspec.msgpack.Decoder[list[Reply]] = msgspec.msgpack.Decoder(list[Reply])


def decode_questions(payload: bytes) -> list[Question]:
    """Read what another worker asks; raises ValueError, and RecursionError for what is nested beyond reason."""
    return _questions.decode(payload)


def decode_replies(payload: bytes) -> list[Reply]:
    """Read what another worker answers; raises as decode_questions()."""
    return _replies.decode(payload)
