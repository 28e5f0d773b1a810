import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "deploy/**/*.md", "bench/**/*.md", "app/**/*.md")
    for page in ROOT.glob(pattern)
)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made for people who read it in a browser."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def unquoted(command: str) -> str:
    """Return what a shell reads of a command without quotes and comments."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "", command).split(" #", 1)[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", page.read_text("utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_curl_lines_can_be_pasted_into_any_shell(page: Path) -> None:
    # zsh refuses to run a line with a ? or [ that matches no file, and & would end it.
    for line in re.findall(r"^\$?\s*(curl .+)$", page.read_text("utf-8"), re.MULTILINE):
        assert not re.search(r"[?*\[\]{}&<>|;]", unquoted(line)), line


def test_every_page_of_the_documentation_is_in_the_readme_s_table() -> None:
    table = re.findall(r"^\| \[(docs/\S+\.md)\]\(\1\) \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(table) == sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md"))
