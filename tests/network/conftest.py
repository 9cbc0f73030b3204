"""A reactor for each test, which checks at its end that the test's streams have ended and left nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.demo.certificates import LocalCertificate, local_certificate
from tests.network.turning import TurningReactor, no_descriptor_left

A_DAY_S = 86_400.0


@pytest.fixture
def reactor() -> Iterator[TurningReactor]:
    """After the test all peers leave and a day passes: whatever is open then is a leak, whatever was raised is an error."""
    with no_descriptor_left():
        turning = TurningReactor()
        yield turning
        for peer in turning.peers:
            peer.close()
        turning.pass_time(A_DAY_S)
        left = [*turning.getReaders(), *turning.getWriters()]
        turning.close()
        assert not left, f"still watched: {left}"
    assert not turning.failures, "raised in the reactor; a test that expects it clears it"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> LocalCertificate:
    """For localhost, from an authority of its own."""
    return local_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def other_certificate(tmp_path_factory: pytest.TempPathFactory) -> LocalCertificate:
    """For localhost too, from an authority that nobody trusts."""
    return local_certificate(tmp_path_factory.mktemp("other-certificate"))
