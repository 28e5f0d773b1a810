import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_variable_of_the_demonstration_is_in_the_readme_and_no_other() -> None:
    package = ROOT / "app" / "tablehouse"
    source = "".join(file.read_text("utf-8") for room in ("demo", "testing") for file in (package / room).glob("*.py"))
    readme = (ROOT / "README.md").read_text("utf-8")
    variables = re.compile(r"\bDEMO_[A-Z_]+\b|\bBOOTSTRAP\b")
    known = {name for name in re.findall(r'"([A-Z_]+)"', source) if variables.fullmatch(name)}
    assert known >= {"BOOTSTRAP", "DEMO_HTTP_PORT"}
    assert set(variables.findall(readme)) == known
