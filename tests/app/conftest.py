"""A home for each test, with a daemon's office beside its commands or without, and a sign-in service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.demo.identity import IdentityProvider
from tests.app.home import ALICE, APPLICATION_ID, DESK, ROBOT_ID, SECRET, Beside, Home, Turning, turning


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def turning_reactor() -> Iterator[Turning]:
    with turning() as reactor:
        yield reactor


@pytest.fixture(scope="session")
def identity_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One certificate for all: keys take time."""
    return tmp_path_factory.mktemp("identity")


@pytest.fixture
def identity(identity_folder: Path) -> Iterator[IdentityProvider]:
    """Knows Alice, who is at the browser, and both apps of `Home.add_signed_in`."""
    with IdentityProvider(identity_folder, device_interval_s=1) as provider:
        provider.add_person(ALICE)
        provider.add_app(APPLICATION_ID)
        provider.add_app(ROBOT_ID, public=False, secret=SECRET, app_only=True, may_open=(DESK,))
        provider.sign_in_as(ALICE)
        yield provider


@pytest.fixture
def furnished(home: Home, identity: IdentityProvider) -> Home:
    """A home with both accounts."""
    home.add_signed_in(identity)
    return home


@pytest.fixture
def beside(home: Home, turning_reactor: Turning) -> Iterator[Beside]:
    """A daemon's office on an empty home."""
    with closing(Beside(home, turning_reactor)) as office:
        yield office


@pytest.fixture
def beside_furnished(furnished: Home, turning_reactor: Turning) -> Iterator[Beside]:
    with closing(Beside(furnished, turning_reactor)) as office:
        yield office
