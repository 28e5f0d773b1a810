"""A run's results as files: JSON, Markdown and the plots."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import msgspec

from bench.figures import Figures
from bench.plot import Axis, plot
from bench.targets import markdown, targets

_PLOTS = {
    "ingest": ("Records in the table over time", Axis("seconds since the first record"), Axis("million records")),
    "reads": ("Point reads: share answered within", Axis("milliseconds", logarithmic=True), Axis("percent")),
}


def write(figures: Figures, machine: Mapping[str, str], folder: Path, title: str, notes: Sequence[str] = ()) -> str:
    """Write everything into the folder, as files whose names begin with `title`, and return the Markdown.

    `notes` are sentences that a reader has to know of before the figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = targets(figures)
    document = {
        "machine": machine,
        "failures": figures.failures,
        "targets": [asdict(line) for line in lines],
        "figures": {
            name: {peer: {"median": median(values), "rounds": values} for peer, values in peers.items()}
            for name, peers in figures.all().items()
        },
    }
    (folder / f"{title}.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    drawn = [name for name in _PLOTS if figures.curves.get(name)]
    for name in drawn:
        caption, across, up = _PLOTS[name]
        (folder / f"{title}-{name}.svg").write_text(plot(caption, across, up, figures.curves[name]), "utf-8")
    text = "\n".join(
        [
            f"# Results: {title}",
            "",
            *(f"{note}\n" for note in notes),
            markdown([line for line in lines if line.got is not None]),
            *(f"Not measured: {name}: {reason}\n" for name, reason in figures.failures.items()),
            *(f"![{_PLOTS[name][0]}]({title}-{name}.svg)\n" for name in drawn),
            "## Every figure",
            "",
            "Medians, with the lowest and the highest round behind them. Compare figures of one run only.",
            "",
            _figures_table(figures),
            "## The machine",
            "",
            "| | |\n|---|---|",
            *(f"| {name} | {value} |" for name, value in machine.items()),
            "",
        ]
    )
    (folder / f"{title}.md").write_text(text, "utf-8")
    return text


def _figures_table(figures: Figures) -> str:
    rows = ["| figure | program | median | rounds |", "|---|---|---|---|"]
    for name, peers in figures.all().items():
        for peer, values in peers.items():
            spread = f"{_number(min(values))} to {_number(max(values))}" if len(values) > 1 else ""
            rows.append(f"| {name} | {peer} | {_number(median(values))} | {spread} |")
    return "\n".join(rows) + "\n"


def _number(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2  # noqa: PLR2004
    return f"{value:,.{digits}f}"
