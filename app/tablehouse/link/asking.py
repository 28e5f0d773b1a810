"""The asking side of a link: questions go out, and each is called back once, with its answer or why there is none."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog

from tablehouse.errors import Overloaded, OwnerUnreachable, RequestError
from tablehouse.link.handshake import NoLink
from tablehouse.link.messages import Cancel, Pong, Question, Reply, Write, encode
from tablehouse.link.wire import PING, Wire, connected
from tablehouse.model import HostInfo
from tablehouse.routing.ports import Unconnected, Unresponsive

log = structlog.get_logger("link")

#: A worker that does not accept a connection within this many seconds is unreachable. One that does, and does not
#: answer the request for a link, may be slow: it is waited for longer.
CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 10.0

#: Questions to one worker that have no answer yet, and bytes of questions that it has not taken. What is beyond is
#: refused at once, so that a slow worker is asked less, and no more waits for it than this.
MAX_QUESTIONS = 4096
MAX_UNSENT_BYTES = 4 << 20

#: Seconds without a word from a worker, with questions open, after which it is pinged; and after the ping until it
#: counts as unresponsive.
PING_SECONDS = 0.5
SILENT_SECONDS = 1.0

#: Seconds between two looks at the questions, while there are any, and at a link without questions. Such a link is
#: pinged at each look, so that a worker that is gone is found before it is asked.
BUSY_INTERVAL = 0.05
IDLE_INTERVAL = 5.0

#: Seconds for which a worker that knows no links is asked over HTTP, before a link is tried again.
NO_LINK_SECONDS = 30.0

#: What is called with a reply, with the error of a question that has none, or with NoLink.
Done = Callable[[Reply | RequestError | NoLink], None]

_NO_QUESTION = 0


class _Open(NamedTuple):
    """A question without an answer; both times are on the event loop's clock.

    message is what was sent, where it may be sent again; None for a write.
    """

    message: bytes | None
    done: Done
    asked_at: float
    until: float
    followed: bool


class Meeting(Protocol):
    """What is told of workers as links to them begin and end."""

    def connected(self, host: HostInfo) -> None:
        """Record that a worker has proven itself."""

    def failed(self, host: HostInfo, error: RequestError) -> None:
        """Record that a worker could not be connected to, or is silent."""


class Line:
    """The questions to one worker, and the connection that they take, which is opened when something is asked."""

    def __init__(self, host: HostInfo, me: Callable[[], HostInfo], keys: Sequence[bytes], meeting: Meeting) -> None:
        self.host = host
        self._me = me
        self._keys = keys
        self._meeting = meeting
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, _Open] = {}
        #: What is to be sent, by the number of its question.
        self._queue: dict[int, bytes] = {}
        self._queued_bytes = 0
        self._is_flushing = False
        self._wire: Wire | None = None
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_busy = False
        self._heard_at = self._used_at = self._loop.time()
        #: When the ping, or the request for a link, was sent that is not answered; None while there is none.
        self._pinged_at: float | None = None
        self._no_link_until = 0.0
        self._is_closed = False

    @property
    def has_no_link(self) -> bool:
        """Return whether the worker was found lately to know no links."""
        return self._no_link_until > self._loop.time()

    @property
    def is_open(self) -> bool:
        """Return whether there is a link."""
        return self._wire is not None

    @property
    def idle_seconds(self) -> float:
        """Return for how long nothing was asked; 0 while a question is open."""
        return 0.0 if self._open or self._opening is not None else self._loop.time() - self._used_at

    def ask(self, number: int, message: Question, seconds: float, done: Done, *, followed: bool) -> None:
        """Send a question; `done` is called once, unless the question is forgotten.

        `followed` says that another worker may be asked, so that a silent one is not waited for. Raises Overloaded when
        too much waits for this worker, and OwnerUnreachable once the line is closed.
        """
        if self._is_closed:
            raise OwnerUnreachable("this worker is stopping")
        wire = self._wire
        unsent = self._queued_bytes + (0 if wire is None else wire.unsent)
        if len(self._open) >= MAX_QUESTIONS or unsent > MAX_UNSENT_BYTES:
            raise Overloaded(
                f"{len(self._open)} questions to worker {self.host.worker_id} are open, with {unsent} bytes not sent"
            )
        now = self._used_at = self._loop.time()
        encoded = encode(message)
        self._open[number] = _Open(None if isinstance(message, Write) else encoded, done, now, now + seconds, followed)
        self._send(number, encoded)
        if not self._is_busy:
            self._is_busy = True
            self._schedule(BUSY_INTERVAL)
        if wire is None and self._opening is None:
            self._start_opening()

    def forget(self, number: int) -> None:
        """Do not call back for a question any more; one that is not sent yet never will be."""
        if self._open.pop(number, None) is None:
            return
        queued = self._queue.pop(number, None)
        if queued is not None:
            self._queued_bytes -= len(queued)
        elif self._wire is not None:
            self._send(number, encode(Cancel(number)))

    def close(self) -> None:
        """Close the connection, and ask nothing more; open questions are called back with an error."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._timer is not None:
            self._timer.cancel()
        if self._wire is not None:
            self._wire.abort()
        self._end(OwnerUnreachable("this worker is stopping"))

    # Sending

    def _send(self, number: int, message: bytes) -> None:
        self._queue[number] = message
        self._queued_bytes += len(message)
        if self._wire is not None and not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send everything that was asked in this turn of the event loop."""
        self._is_flushing = False
        if self._wire is not None and self._queue:
            queue, self._queue, self._queued_bytes = self._queue, {}, 0
            self._wire.send(list(queue.values()))

    def _start_opening(self) -> None:
        self._opening = self._loop.create_task(self._connect(), name=f"link to {self.host.worker_id}")

    async def _connect(self) -> None:
        error: RequestError | NoLink
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                wire = await connected(self, self.host, self._me(), self._keys)
            if self._wire is None:
                self._pinged_at = self._loop.time()
            await wire.answered(ANSWER_SECONDS)
        except (NoLink, ValueError) as none:
            # A name that sockets do not take is a ValueError.
            self._no_link_until = self._loop.time() + NO_LINK_SECONDS
            error = NoLink(f"no link to {self.host.url}: {none}")
        except RequestError as refused:
            error = refused
        except TimeoutError:
            error = Unconnected(f"no connection to {self.host.url} within {CONNECT_SECONDS:g} s")
        except OSError as failed:
            error = Unconnected(f"{self.host.url}: {failed}")
        else:
            return
        self._opening = None
        if isinstance(error, RequestError):
            self._meeting.failed(self.host, error)
        old = self._wire
        if old is None:
            self._pinged_at = None
            self._end(error)
        elif not isinstance(error, Unconnected):
            # The process that the silent connection leads to is gone.
            old.abort()

    # What the connection calls

    def opened(self, wire: Wire) -> None:
        """Send what was asked meanwhile: the worker has proven itself."""
        self._opening = None
        old, self._wire = self._wire, wire
        self._heard_at, self._pinged_at = self._loop.time(), None
        self._meeting.connected(self.host)
        if old is not None:
            old.abort()
            self._ask_again()
        self._flush()

    def received(self, replies: Sequence[Reply]) -> None:
        """Call back the questions that these answer."""
        self._heard_at, self._pinged_at = self._loop.time(), None
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        for reply in replies:
            if isinstance(reply, Pong):
                continue
            question = self._open.pop(reply.number, None)
            if question is not None:
                self._call_back(question, reply)

    def lost(self, wire: Wire, reason: str) -> None:
        """Call back every open question: the connection has ended."""
        if wire is self._wire:
            self._wire = self._pinged_at = None
            self._end(OwnerUnreachable(f"{self.host.url}: {reason}"))

    # Questions without an answer

    def _end(self, error: RequestError | NoLink) -> None:
        questions, self._open = self._open, {}
        self._queue, self._queued_bytes = {}, 0
        for question in questions.values():
            self._call_back(question, error)

    def _ask_again(self) -> None:
        """Send the open questions on a connection that takes the place of a silent one, but for writes."""
        self._queue, self._queued_bytes = {}, 0
        for number, question in list(self._open.items()):
            if question.message is None:
                del self._open[number]
                self._call_back(question, OwnerUnreachable(f"{self.host.url}: its connection was silent"))
            else:
                self._send(number, question.message)

    def _call_back(self, question: _Open, outcome: Reply | RequestError | NoLink) -> None:
        try:
            question.done(outcome)
        except Exception:
            log.exception("the answer to a question could not be taken", peer=self.host.worker_id)

    def _schedule(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """End the questions whose time is up, and find out whether the worker is silent."""
        now = self._loop.time()
        for number, question in [one for one in self._open.items() if one[1].until <= now]:
            self.forget(number)
            # Without a connection it was not sent.
            kind: type[OwnerUnreachable] = Unconnected if self._wire is None else Unresponsive
            if self._heard_at > question.asked_at:
                kind = OwnerUnreachable
            waited = now - question.asked_at
            self._call_back(question, kind(f"no answer from {self.host.url} within {waited:.3g} s"))
        if self._wire is not None or self._pinged_at is not None:
            self._watch(now)
        self._is_busy = bool(self._open) or self._pinged_at is not None
        if self._is_busy or self._wire is not None:
            self._schedule(BUSY_INTERVAL if self._is_busy else IDLE_INTERVAL)

    def _watch(self, now: float) -> None:
        """Ping a worker that says nothing, and give up one that does not answer the ping."""
        if self._pinged_at is None:
            oldest = min((question.asked_at for question in self._open.values()), default=-IDLE_INTERVAL)
            if now - max(oldest, self._heard_at) >= PING_SECONDS:
                self._pinged_at = now
                self._send(_NO_QUESTION, PING)
        elif now - self._pinged_at >= SILENT_SECONDS:
            what = "the request for a link" if self._wire is None else "a ping"
            error = Unresponsive(f"no answer from {self.host.url} to {what} within {SILENT_SECONDS:g} s")
            self._pinged_at = now  # and again, as long as it is silent
            self._meeting.failed(self.host, error)
            if self._opening is None:
                # Where the network failed for a while, a new connection works long before the old one does.
                self._start_opening()
            for number, question in [one for one in self._open.items() if one[1].followed]:
                self.forget(number)
                self._call_back(question, error)
