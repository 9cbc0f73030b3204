"""The short run: every seed, everything in the corpus, and a bounded number of new inputs for each target.

The long run, led by coverage, is `tests/fuzz/run`.
"""

from __future__ import annotations

from functools import partial

import pytest

from proxy.protocols.dialogue import InputBuffer
from tests.fuzz.by_hypothesis import explore
from tests.fuzz.case import HEADER_OCTETS, MAX_SPEECH_OCTETS, PASSWORD, PLAIN_RESPONSE, expanded, written
from tests.fuzz.corpus import MAX_KEPT, MAX_KEPT_OCTETS, failure_of, kept, shrink
from tests.fuzz.targets import TARGETS, Target

EXAMPLES = 400  # of each target: some seconds together, and a quarter of a minute under coverage

each_target = partial(pytest.mark.parametrize, "target", TARGETS.values(), ids=lambda target: target.name)


@each_target()
def test_the_seeds_hold(target: Target) -> None:
    seeds = target.seeds()
    assert seeds
    for octets in seeds:
        target.harness(octets)


@each_target()
def test_the_corpus_holds(target: Target) -> None:
    for octets in kept(target):
        target.harness(octets)


@each_target()
def test_the_corpus_is_small(target: Target) -> None:
    inputs = kept(target)
    assert len(inputs) <= MAX_KEPT
    assert all(len(octets) <= MAX_KEPT_OCTETS for octets in inputs)


@each_target()
def test_new_inputs_hold(target: Target) -> None:
    explore(target, EXAMPLES)


# --- the fuzzer itself: it must be able to find


def test_a_speech_is_written_and_read() -> None:
    speech = b"\xfc\xfd\xfe\0" + b"x" * 70_000 + b"\r\n"
    assert len(written(speech)) < 600
    assert expanded(written(speech), b"", b"") == speech


def test_secrets_and_bounds_are_reached_by_few_octets() -> None:
    assert expanded(b"\xfd \xfc", PASSWORD, PLAIN_RESPONSE) == PASSWORD + b" " + PLAIN_RESPONSE
    assert len(expanded(b"x\xfe\xff\xfe\xff", b"", b"")) == MAX_SPEECH_OCTETS
    assert expanded(b"\xfe\x05", b"", b"") == expanded(b"\xfe", b"", b"") == b""


def test_a_search_from_the_start_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    line = InputBuffer.line

    def forgetful(buffer: InputBuffer, limit_octets: int) -> bytes | None:
        buffer._scanned = 0
        return line(buffer, limit_octets)

    monkeypatch.setattr(InputBuffer, "line", forgetful)
    with pytest.raises(AssertionError, match="octets searched"):
        TARGETS["pop3_front"].harness(bytes(HEADER_OCTETS) + b"PASS x\xfe\x01")


def test_a_token_in_the_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.protocols.smtp_upstream.without_token", lambda text, bearer: text[:160])
    told = b"220 x\r\n250-x\r\n250 AUTH XOAUTH2\r\n334 \r\n535 \xfd\r\n"
    with pytest.raises(AssertionError, match="a token told"):
        TARGETS["smtp_upstream"].harness(bytes(HEADER_OCTETS) + told)


def test_an_echo_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.protocols.sasl.PASSWORD_PROMPT", PASSWORD)
    monkeypatch.setattr("base64.b64encode", bytes)
    with pytest.raises(AssertionError, match="plain sight"):
        TARGETS["pop3_front"].harness(bytes(HEADER_OCTETS) + b"AUTH LOGIN\r\ndQ==\r\n")


def test_a_finding_is_shrunk() -> None:
    def harness(octets: bytes) -> None:
        if b"{" in octets and octets.count(b"x") > 2:
            raise ValueError

    found = b"abc{defxxghix" + b"jk" * 50
    assert sorted(shrink(harness, found)) == sorted(b"{xxx")
    assert failure_of(harness, b"{") is None
