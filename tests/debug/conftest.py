"""A folder for the doors of each test, so that they meet no others."""

import pytest


@pytest.fixture
def door_folder(tmp_path, monkeypatch):
    """Where this test's doors are, and those of the programs that it starts. It does not exist yet."""
    folder = tmp_path / "doors"
    monkeypatch.setenv("GOLOOP_DEBUG_DIR", str(folder))
    return folder
