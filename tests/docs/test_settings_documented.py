import pytest

from deploy.helm.generate import SETTINGS_PAGE, with_settings
from tablehouse.config.settings import SETTINGS, Setting


def test_the_table_of_settings_is_that_of_the_code() -> None:
    page = SETTINGS_PAGE.read_text(encoding="utf-8")
    assert with_settings(page) == page, "run: python -m deploy.helm.generate"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_setting_is_documented_with_its_variable_flag_default_and_description(setting: Setting) -> None:
    default = "required" if setting.default is None else f"`{setting.default}`"
    row = f"| `{setting.variable}` | `{setting.flag}` | {default} | {setting.description} |"
    assert row in SETTINGS_PAGE.read_text(encoding="utf-8").splitlines()


def test_nothing_is_documented_that_is_not_a_setting() -> None:
    rows = [line for line in SETTINGS_PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [setting.variable for setting in SETTINGS]
