"""Every script of `tests/dialogues` on the pure dialogues: as written, cut anywhere, scrambled with noise."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.login import Fault, LoginRefused, Refusal
from proxy.protocols import PROTOCOLS
from proxy.protocols.dialogue import Action, Ready
from tests.protocols.scripts import Expired, Player, Refuse, Script, joined, parse, replay, scripts

SCRIPTS = scripts()
SPLITTABLE = [script for script in SCRIPTS if script.splits]
named = partial(pytest.mark.parametrize, "script", ids=lambda script: script.name)


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
    script.answers = [*[refuse] * data.draw(st.integers(0, 8)), Ready("")]
    player = Player(script, PROTOCOLS[script.protocol])
    player.open()
    for piece in data.draw(_scrambled(script)):
        player.play(piece)
    if player.front is not None:
        player.play(Expired())


def test_unknown_words_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("protocol: imap\ncolour: red\n\nS: x\n")
    with pytest.raises(ValueError, match="colour"):
        parse(path)
