"""What a run has measured: for each figure and program the values of all rounds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

OURS = "Tablehouse"
STREAMS = "Kafka Streams"
FAUST = "stock Faust"


class Point(NamedTuple):
    """A point of a plot."""

    x: float
    y: float


class Figures:
    """Figures by name (which says the unit) and program; curves for the plots, of which the last round's is kept."""

    def __init__(self) -> None:
        self._values: defaultdict[str, dict[str, list[float]]] = defaultdict(dict)
        #: What could not be measured, and why.
        self.failures: dict[str, str] = {}
        self.curves: defaultdict[str, dict[str, Sequence[Point]]] = defaultdict(dict)

    def add(self, name: str, value: float, peer: str = OURS) -> None:
        """Add the value of one round."""
        self._values[name].setdefault(peer, []).append(value)

    def median(self, name: str, peer: str = OURS) -> float | None:
        """Return the median of the rounds; None when it was not measured."""
        values = self._values.get(name, {}).get(peer)
        return median(values) if values else None

    def over(self, name: str, peer: str, of: str = OURS) -> float | None:
        """Return the median of one program divided by that of another; None when either was not measured."""
        above, below = self.median(name, of), self.median(name, peer)
        return above / below if above is not None and below else None

    def all(self) -> Mapping[str, Mapping[str, Sequence[float]]]:
        """Return the values of all rounds by name and program."""
        return self._values
