import json
import logging
import sys
import threading
from collections.abc import Iterator

import msgspec
import pytest
import structlog
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ValidationError

from tablehouse.errors import TopicError
from tablehouse.logs import LogFormat, configure_logging, log_uncaught
from tablehouse.masking import in_words, traceback_in_words, without_user_info

#: What a line must not have, as a key, a row or a password would stand in it.
DATA = "hunter2"


class Account(BaseModel):
    """Refuses the data, and repeats it."""

    age: int


def fail(error: BaseException | None = None) -> BaseException:
    """Return an exception as it is when it has been raised, of a frame whose variables hold data."""
    password = DATA

    def give_up() -> None:
        if error is not None:
            raise error
        Account.model_validate({"age": password})

    try:
        give_up()
    except BaseException as raised:  # noqa: BLE001 - any kind is given
        return raised
    raise AssertionError


QUOTING = [
    ValueError(f"invalid literal for int() with base 10: {DATA!r}"),
    KeyError(DATA),
    KeyError(DATA.encode()),
    UnicodeDecodeError("utf-8", DATA.encode(), 0, 1, "invalid start byte"),
    KafkaError(f"ProduceRequest(topics=[{DATA.encode()!r}])"),
    msgspec.ValidationError(f'Invalid enum value "{DATA}"'),
    RuntimeError(f"it's not as it should be: 'it\\'s {DATA}'"),
    LookupError({"value": DATA}),
]


@pytest.mark.parametrize("error", QUOTING, ids=lambda error: type(error).__name__)
def test_an_exception_is_told_without_what_it_quotes(error: BaseException) -> None:
    raised = fail(error)
    for text in (in_words(raised), traceback_in_words((type(raised), raised, raised.__traceback__))):
        assert DATA not in text
        assert type(error).__name__ in text


def test_an_exception_of_a_model_is_told_without_its_input() -> None:
    raised = fail()
    assert isinstance(raised, ValidationError)
    assert DATA not in in_words(raised)


def test_what_is_about_code_files_and_hosts_is_told_in_full() -> None:
    assert in_words(FileNotFoundError(2, "No such file or directory", "/data/LOCK")).endswith("'/data/LOCK'")
    assert in_words(AttributeError("'NoneType' object has no attribute 'x'")).endswith("attribute 'x'")
    assert in_words(TopicError("topic 'a' is missing")) == "TopicError: topic 'a' is missing"


def test_a_traceback_has_the_frames_and_every_exception_of_its_chain() -> None:
    try:
        try:
            int(DATA)
        except ValueError as error:
            raise TopicError("no topic") from error
    except TopicError as error:
        text = traceback_in_words((type(error), error, error.__traceback__))
    assert "int(DATA)" in text
    assert "ValueError: invalid literal for int() with base 10: '...'" in text
    assert text.endswith("TopicError: no topic")
    assert DATA not in text
    group = ExceptionGroup("both", [ValueError(f"a {DATA!r}"), OSError(5, "b")])
    text = traceback_in_words((type(group), group, None))
    assert "ValueError: a '...'" in text
    assert "OSError: [Errno 5] b" in text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://host:80", "http://host:80"),
        ("http://me:secret@host:80", "http://***@host:80"),
        ("http://me:se/c@ret@host", "http://***@host"),
        ("me:secret@host:9092", "***@host:9092"),
    ],
)
def test_a_url_is_shown_without_user_and_password(given: str, shown: str) -> None:
    assert without_user_info(given) == shown


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, sys.unraisablehook, threading.excepthook)
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


@pytest.mark.usefixtures("_logging_as_it_was")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_line_of_any_library_has_data_whatever_the_level(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure_logging(log_format, "debug", "w1")
    log_uncaught()
    for name in ("aiokafka.conn", "aiohttp.client", "httpx", "faust", "mode", "asyncio", "somebody.else"):
        library = logging.getLogger(name)
        library.debug("request %s", DATA)
        library.warning("record %r", DATA.encode())
        library.error("failed: %r", fail(UnicodeDecodeError("utf-8", DATA.encode(), 0, 1, "bad")), exc_info=fail())
    logging.getLogger("asyncio").error("Exception in callback f(%r)\nhandle: <Handle f(%r)>", DATA, DATA)
    loud = logging.getLogger("sets.its.own.level")
    loud.setLevel(logging.DEBUG)
    loud.debug("request %s", DATA)
    structlog.get_logger().error("own", exc_info=fail())
    sys.excepthook(ValueError, fail(ValueError(repr(DATA))), None)
    thread = threading.Thread(target=int, args=(DATA,))
    thread.start()
    thread.join()
    text = capsys.readouterr().err
    assert DATA not in text
    assert "7 bytes" in text
    assert "UnicodeDecodeError: bad" in text
    assert "a thread has ended" in text
    if log_format == "json":
        assert all(json.loads(line) for line in text.splitlines())
