import asyncio
import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog

from tablehouse.http.access_log import LINES_PER_SECOND, AccessLog
from tablehouse.kafka.log_lines import QUIET
from tablehouse.logs import MAX_REPEAT_SECONDS, REPEAT_SECONDS, LogFormat, Repeats, configure_logging
from tablehouse.model import TaskState, TaskStatus
from tablehouse.telemetry import Metrics, measure_event_loop_lag
from tests.support.cluster_fakes import FakeClock


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def write(log: AccessLog, status: int = 200, key: bytes | None = b"N10156") -> None:
    log.write(
        method="GET",
        route="/tables/{table}/{key}",
        status=status,
        seconds=0.00123,
        request_id="r1",
        key=key,
        served_by="b",
    )


def test_own_and_library_lines_are_json_with_the_worker_s_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info", "w1")
    structlog.get_logger().info("restored", table="planes", partition=3)
    logging.getLogger("aiokafka").warning("lost %s", "a broker")
    own, foreign = lines(capsys)
    assert (own["event"], own["worker"], own["level"], own["table"], own["partition"]) == (
        "restored",
        "w1",
        "info",
        "planes",
        3,
    )
    assert own["ts"]
    assert (foreign["event"], foreign["worker"], foreign["logger"]) == ("lost a broker", "w1", "aiokafka")


def test_what_a_library_repeats_is_written_once_in_a_while_with_how_often_it_was_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("json", "info", "w1")
    clock = FakeClock()
    (handler,) = logging.getLogger().handlers
    handler.filters[:] = [Repeats(clock)]
    library = logging.getLogger("aiokafka.client")
    for number in range(5):
        library.warning("no connection to %s", number)
    library.warning("something else")
    clock.now += REPEAT_SECONDS
    library.warning("no connection to %s", 5)
    assert [line["event"] for line in lines(capsys)] == [
        "no connection to 0",
        "something else",
        "no connection to 5 (4 similar lines suppressed)",
    ]


def test_what_a_library_repeats_for_long_is_written_ever_more_rarely_and_soon_again_after_a_quiet_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("json", "info", "w1")
    clock = FakeClock()
    (handler,) = logging.getLogger().handlers
    handler.filters[:] = [Repeats(clock)]
    library = logging.getLogger("aiokafka.client")
    for _ in range(3600):
        library.warning("no connection")
        clock.now += 1
    assert len(lines(capsys)) == 11  # after 0, 10, 30, 70, 150, 310, 630 s, and then each 640 s
    clock.now += MAX_REPEAT_SECONDS
    for _ in range(3):
        library.warning("no connection")
        clock.now += REPEAT_SECONDS
    assert [str(line["event"]).partition(" (")[0] for line in lines(capsys)] == ["no connection"] * 3


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "WARNING", "w1")
    structlog.get_logger().info("quiet")
    logging.getLogger("faust").info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_exceptions_are_part_of_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info", "w1")
    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("request failed")
        logging.getLogger("mode").exception("service failed")
    assert all("ValueError: invalid literal" in str(line["exception"]) for line in lines(capsys))


@pytest.mark.parametrize("log_format", ["console"])
def test_the_console_format_is_for_people(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    configure_logging(log_format, "info", "w1", quiet=QUIET)
    structlog.get_logger().info("restored", table="planes")
    logging.getLogger("faust").info("a service has started")
    logging.getLogger("faust").warning("rebalanced")
    text = capsys.readouterr().err
    assert re.match(r"\d{4}-\d\d-\d\dT\S+ \[info +\] restored ", text)
    assert "table=planes" in text
    assert "rebalanced" in text
    assert "a service has started" not in text
    assert "{" not in text


def test_a_key_is_logged_as_a_hash_only(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "debug", "w1")
    write(AccessLog(FakeClock()))
    [line] = lines(capsys)
    assert (line["event"], line["status"], line["duration_ms"], line["served_by"]) == ("request", 200, 1.23, "b")
    assert len(str(line["key_hash"])) == 16
    assert "N10156" not in json.dumps(line)


def test_only_faults_of_ours_are_logged_at_info(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info", "w1")
    log = AccessLog(FakeClock())
    for status in (200, 404, 503, 500, 504):
        write(log, status)
    assert [line["status"] for line in lines(capsys)] == [500, 504]


def test_a_flood_of_requests_is_no_flood_of_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info", "w1")
    clock = FakeClock()
    log = AccessLog(clock)
    for _ in range(LINES_PER_SECOND + 7):
        write(log, 500, key=None)
    clock.now += 1
    write(log, 500)
    written = lines(capsys)
    assert len(written) == LINES_PER_SECOND + 1
    assert written[-1]["suppressed_lines"] == 7


async def test_the_event_loop_s_lag_is_observed_until_cancelled() -> None:
    metrics = Metrics("0")
    task = asyncio.create_task(measure_event_loop_lag(metrics, 0.001))

    def observed() -> float:
        return metrics.registry.get_sample_value("tablehouse_event_loop_lag_seconds_count") or 0

    async with asyncio.timeout(5):
        while observed() < 2:  # noqa: ASYNC110 - a histogram tells nobody when it changes
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_metrics_hold_no_line_about_when_they_were_made() -> None:
    metrics = Metrics("1")
    metrics.ingest_records.labels("planes").inc()
    metrics.read_duration.labels("planes", "local").observe(0.001)
    text = (await metrics.exposition()).decode()
    assert 'tablehouse_ingest_records_total{table="planes"} 1.0' in text
    assert "_created" not in text


async def test_the_applied_offset_of_a_task_with_several_inputs_is_that_of_all_of_them_together() -> None:
    metrics = Metrics("1")
    metrics.watch_tasks(
        lambda: [
            TaskStatus("planes", 2, TaskState.ACTIVE, 1207, 0, 0, None, None, 1),
            TaskStatus("sales", 2, TaskState.ACTIVE, "orders/2:9,refunds/2:4", 0, 0, None, None, 1),
        ]
    )
    text = (await metrics.exposition()).decode()
    assert 'tablehouse_applied_offset{partition="2",table="planes"} 1207.0' in text
    assert 'tablehouse_applied_offset{partition="2",table="sales"} 14.0' in text
