"""The page beside an empty home or a furnished one, and a visitor who came in by the link."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.app.home import Beside, Home
from tests.app.page.visitor import Served, Visitor


@pytest.fixture
def served(home: Home, beside: Beside) -> Iterator[Served]:
    """No app and no account yet."""
    with closing(Served(home, beside)) as page:
        yield page


@pytest.fixture
def visitor(served: Served) -> Visitor:
    """Has come in by a link."""
    visitor = Visitor(served.port)
    visitor.enter(served.link())
    return visitor


@pytest.fixture
def served_furnished(furnished: Home, beside_furnished: Beside) -> Iterator[Served]:
    """Alice and the robot, at the stand-in sign-in service."""
    with closing(Served(furnished, beside_furnished)) as page:
        yield page


@pytest.fixture
def resident(served_furnished: Served) -> Visitor:
    """Has come in by a link, where there are accounts."""
    visitor = Visitor(served_furnished.port)
    visitor.enter(served_furnished.link())
    return visitor
