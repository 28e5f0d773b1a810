"""Tallies are to a scrape what Prometheus' own counters and histograms are."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from tablehouse.tallies import Counts, Histograms

BOUNDS = (0.001, 0.25, 1.0)
SEEN = [0.0, 0.001, 0.0011, 0.25, 0.9, 1.0, 7.0]


def test_both_have_the_same_exposition() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts, counter = Counts("t_n", "Some.", ("a", "b")), Counter("t_n", "Some.", ("a", "b"), registry=theirs)
    times, histogram = (
        Histograms("t_s", "Others.", ("a",), BOUNDS),
        Histogram("t_s", "Others.", ("a",), registry=theirs, buckets=BOUNDS),
    )
    whole, alone = Histograms("t_w", "All.", (), BOUNDS), Histogram("t_w", "All.", registry=theirs, buckets=BOUNDS)
    for collector in (counts, times, whole):
        ours.register(collector)
    for one in (counts, counter):
        one.labels("x", 200).inc()
        one.labels("x", 200).inc(3)
        one.labels("y", 404)
    for value in SEEN:
        times.labels("x").observe(value)
        histogram.labels("x").observe(value)
        whole.observe(value)
        alone.observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_one_name_is_registered_once() -> None:
    registry = CollectorRegistry()
    registry.register(Counts("t_n", "Some.", ()))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Counts("t_n", "Some.", ()))


def test_a_histogram_with_labels_is_not_observed_as_a_whole() -> None:
    with pytest.raises(TypeError, match="t_s is observed by its labels"):
        Histograms("t_s", "Some.", ("a",), BOUNDS).observe(1.0)
