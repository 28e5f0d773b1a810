from pathlib import Path

import pytest

from tests.support.helm import HELM_3, HELM_4, Helm


@pytest.fixture(params=[HELM_3, HELM_4], ids=["helm-3", "helm-4"])
def helm(request: pytest.FixtureRequest) -> Helm:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a folder for Helm's own files."""
    path = tmp_path / "helm"
    path.mkdir()
    return path
