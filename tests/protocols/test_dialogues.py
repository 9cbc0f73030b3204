"""Every script of `tests/dialogues` on the pure dialogues: as written, cut anywhere, scrambled with noise.

And every case of CLIENTS section 6: `pytest -k case_42` runs what there is of number 42.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.login import Fault, LoginRefused, Refusal
from proxy.protocols import PROTOCOLS
from proxy.protocols.dialogue import Action, Ready
from tests.protocols.scripts import Answer, Expired, Player, Refuse, Script, joined, parse, replay, scripts

SCRIPTS = scripts()
SPLITTABLE = [script for script in SCRIPTS if script.splits]
named = partial(pytest.mark.parametrize, "script", ids=lambda script: script.test_id)


@named(argvalues=SCRIPTS)
def test_script_as_written(script: Script) -> None:
    player = Player(script, PROTOCOLS[script.protocol])
    actions: list[Action] = player.open()
    for exchange in script.exchanges:
        for piece in exchange.inputs:
            actions += player.play(piece)
        assert joined(actions) == exchange.actions
        actions = []
    assert player.unread() == script.unread


@named(argvalues=SPLITTABLE)
def test_script_octet_by_octet(script: Script) -> None:
    octets, expected = script.splittable()
    assert replay(script, PROTOCOLS[script.protocol], [bytes([o]) for o in octets]) == (expected, script.unread)


@named(argvalues=SPLITTABLE)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_script_cut_anywhere(script: Script, data: st.DataObject) -> None:
    octets, expected = script.splittable()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=6)))
    pieces = [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    assert replay(script, PROTOCOLS[script.protocol], pieces) == (expected, script.unread)


def _scrambled(script: Script) -> st.SearchStrategy[list[bytes]]:
    """Random octets, and the script's own lines in any order between them: so noise gets past the first state."""
    own = [piece for exchange in script.exchanges for piece in exchange.inputs if isinstance(piece, bytes)]
    piece = st.binary(max_size=40)
    return st.lists(piece | st.sampled_from(own) if own else piece, max_size=12)


@named(argvalues=SCRIPTS)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_noise_ends_in_actions(script: Script, data: st.DataObject) -> None:
    refuse = Refuse(LoginRefused(Refusal.BAD_CREDENTIALS, "No.", fault=Fault.CLIENT), final=False)
    answers: list[Answer] = [*[refuse] * data.draw(st.integers(0, 8)), Ready("")]
    player = Player(replace(script, answers=answers), PROTOCOLS[script.protocol])
    player.open()
    for piece in data.draw(_scrambled(script)):
        player.play(piece)
    if player.front is not None:
        player.play(Expired())


CASE_05 = next(script for script in SCRIPTS if script.name == "imap-case-05-literal-plus")
CASE_05_OCTETS, CASE_05_ACTIONS = CASE_05.splittable()


@pytest.mark.parametrize("cut", range(len(CASE_05_OCTETS) + 1))
def test_case_06_cut_at_every_octet(cut: int) -> None:
    pieces = [CASE_05_OCTETS[:cut], CASE_05_OCTETS[cut:]]
    assert replay(CASE_05, PROTOCOLS["imap"], pieces) == (CASE_05_ACTIONS, b"")


NO_DIALOGUE = {
    40: "passdb's: as long for an unknown user as for a wrong password",
    66: "passdb's and the session's: attempts are slowed down, and hashing is bounded",
    67: "the running daemon's: no secret in its log",
}
"""Cases of CLIENTS section 6 that no wire dialogue shows."""


def test_every_case_of_clients_has_a_script_or_a_test() -> None:
    names = [script.test_id for script in SCRIPTS]
    for module in Path(__file__).parent.glob("test_*.py"):
        names += re.findall(r"^def test_(case_\d+)", module.read_text(), re.MULTILINE)
    shown = {int(number) for name in names for number in re.findall(r"case_(\d+)", name)}
    assert shown == set(range(1, 68)) - NO_DIALOGUE.keys()


def test_unknown_words_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("protocol: imap\ncolour: red\n\nS: x\n")
    with pytest.raises(ValueError, match="colour"):
        parse(path)
