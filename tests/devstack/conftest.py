"""A stack of its own for each test, away from the project's, and gone after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.layout import Layout
from devstack.stack import down


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(root=Layout().root, state=tmp_path / ".devstack")
    yield layout
    down(layout)
