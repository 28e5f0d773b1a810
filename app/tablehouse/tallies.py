"""Counters and histograms for what happens with every read: plain numbers, which Prometheus' client sees at a scrape.

The client's own take a lock for each number, and two for an observation: together an eighth of what a read costs (see
bench/README.md). These belong to the event loop's thread; a scrape in another thread may see an observation half.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Count:
    """A number of events."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Count some events."""
        self.value += amount


class Counts(Collector):
    """Numbers of events by labels, as a counter."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._family = (name, text, labels)
        self._counts: dict[tuple[str, ...], Count] = {}

    def labels(self, *values: object) -> Count:
        """Return the number of events with these labels, which exists from now on."""
        key = tuple(map(str, values))
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = Count()
        return found

    def describe(self) -> Iterable[Metric]:
        """Return the name of the metric."""
        return [self._new()]

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        family = self._new()
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count.value)
        yield family

    def _new(self) -> CounterMetricFamily:
        name, text, labels = self._family
        return CounterMetricFamily(name, text, labels=labels)


class Times:
    """How many observations lie in each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count an observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Histograms(Collector):
    """Observations by labels, as a histogram; one without labels is observed itself."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._family = (name, text, labels)
        self._bounds = tuple(bounds)
        self._times: dict[tuple[str, ...], Times] = {}
        self.observe = self.labels().observe if not labels else self._needs_labels

    def labels(self, *values: object) -> Times:
        """Return the observations with these labels, which exist from now on."""
        key = tuple(map(str, values))
        found = self._times.get(key)
        if found is None:
            found = self._times[key] = Times(self._bounds)
        return found

    def describe(self) -> Iterable[Metric]:
        """Return the name of the metric."""
        return [self._new()]

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        family = self._new()
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, times in list(self._times.items()):
            family.add_metric(labels, list(zip(names, accumulate(times.counts), strict=True)), times.sum)
        yield family

    def _new(self) -> HistogramMetricFamily:
        name, text, labels = self._family
        return HistogramMetricFamily(name, text, labels=labels)

    def _needs_labels(self, value: float) -> None:
        raise TypeError(f"{self._family[0]} is observed by its labels {self._family[2]}, not as a whole: {value}")
