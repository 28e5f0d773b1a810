"""Writes proposals as a tables.yaml, with the reasons as comments."""

import textwrap
from collections.abc import Iterable, Iterator

import yaml

from tablehouse.catalog.spec import DEFAULT_SPELLINGS, KeySpec
from tablehouse.inspection.proposal import Proposal

#: Placeholder for a manual decision; no format or partitioner has this name, so workers refuse the file.
UNDECIDED = "UNDECIDED"

_LINE_WIDTH = 118


def tables_yaml(proposals: Iterable[Proposal]) -> str:
    """Return a tables.yaml with the possible tables, and comments in place of the others."""
    return "".join(f"{line}\n" for line in _lines(proposals))


def _lines(proposals: Iterable[Proposal]) -> Iterator[str]:
    yield "tables:"
    for number, proposal in enumerate(proposals):
        if number:
            yield ""
        sample = proposal.sample
        partitions = "1 partition" if sample.partitions == 1 else f"{sample.partitions} partitions"
        yield from _comment(
            f"Topic {sample.topic}: {partitions}, {len(sample.records)} of {sample.offsets} records were inspected.",
            "  ",
        )
        for text in (*proposal.notes, *proposal.problems):
            yield from _comment(f"{text}.", "  ")
        if proposal.is_possible:
            yield from _table(proposal)
        else:
            yield from _comment("So there is no table for this topic.", "  ")


def _table(proposal: Proposal) -> Iterator[str]:
    key, value, partitioner = proposal.key, proposal.value, proposal.partitioner
    yield f"  - name: {_scalar(proposal.name)}"
    yield "    source:"
    yield f"      topic: {_scalar(proposal.sample.topic)}"
    yield from _comment(f"{key.why}.", "      ")
    yield f"      key: {UNDECIDED if key.spec is None or key.rivals else _key(key.spec)}"
    yield from _comment(f"{value.why}.", "      ")
    yield f"      value: {value.spec}"
    if value.envelope != "none":
        yield f"      envelope: {value.envelope}"
    if partitioner.name is not None:
        yield from _comment(f"{partitioner.name}: {partitioner.why}.", "      ")
    yield f"      partitioner: {partitioner.name or UNDECIDED}"


def _key(spec: KeySpec) -> str:
    parts: dict[str, str] = {"format": spec.format}
    if spec.bare:
        parts["field"] = _scalar(spec.fields[0])
    elif spec.fields:
        parts["fields"] = f"[{', '.join(map(_scalar, spec.fields))}]"
    if spec.spellings != DEFAULT_SPELLINGS:
        parts["spellings"] = f"[{', '.join(spec.spellings)}]"
    if len(parts) == 1:
        return spec.format
    return f"{{{', '.join(f'{name}: {value}' for name, value in parts.items())}}}"


def _scalar(text: str) -> str:
    """Return text as a YAML scalar that is valid in a flow collection."""
    [line] = yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=10_000).splitlines()
    return line[1:-1]


def _comment(text: str, indent: str) -> Iterator[str]:
    # Text from a topic may have line breaks, which would end the comment.
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return iter(
        textwrap.wrap(
            plain, _LINE_WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
        )
    )
