"""A broker that tests may be rough with."""

from collections.abc import Iterator

import pytest

from tablehouse.testing.kafka import EmbeddedKafka


@pytest.fixture(scope="session")
def _rough_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("rough-kafka")) as broker:
        yield broker


@pytest.fixture
def rough_kafka(_rough_broker: EmbeddedKafka) -> Iterator[EmbeddedKafka]:
    """Lend a broker that may be paused and restarted, but has to run when the test ends; a paused one runs on then.

    One for all such tests, since starting one takes seconds: use names of your own.
    """
    yield _rough_broker
    _rough_broker.resume()
