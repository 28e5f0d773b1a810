"""A worker's time of day, which can be set while it runs; its clocks that only count go on as they do."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from tests.support.debian import file_of
from tests.support.polling import until
from tests.support.worker import WorkerProcess

#: How far what a worker tells may be from what was set: seconds are cut off, and looked up once each second.
_TOLERANCE = timedelta(minutes=1)


class SetClock:
    """The time of day of one worker, by libfaketime; made before it is started."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._file = worker.folder / "clock"
        self._write(0)
        worker.environment |= {
            "LD_PRELOAD": str(file_of("libfaketime", "usr/lib/*/faketime/libfaketimeMT.so.1")),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    async def set(self, hours: int) -> None:
        """Have it that many hours ahead of the real one, and wait until the worker goes by it."""
        self._write(hours)

        async def told() -> bool:
            date = (await self._worker.get("/livez")).headers["date"]
            away = parsedate_to_datetime(date) - datetime.now(UTC)
            return abs(away - timedelta(hours=hours)) < _TOLERANCE

        await until(told, f"the time of {self._worker.folder.name} is {hours} h ahead")

    def _write(self, hours: int) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(f"{hours:+d}h\n")
        partial.replace(self._file)
