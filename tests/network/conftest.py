"""A reactor for each test, which checks at its end that the test's streams have ended and left nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.demo.certificates import LocalCertificate, local_certificate
from tests.network.turning import TurningReactor, turning_reactor


@pytest.fixture
def reactor() -> Iterator[TurningReactor]:
    """See `turning_reactor`: it also checks what the test leaves behind."""
    with turning_reactor() as turning:
        yield turning


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> LocalCertificate:
    """For localhost, from an authority of its own."""
    return local_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def other_certificate(tmp_path_factory: pytest.TempPathFactory) -> LocalCertificate:
    """For localhost too, from an authority that nobody trusts."""
    return local_certificate(tmp_path_factory.mktemp("other-certificate"))
