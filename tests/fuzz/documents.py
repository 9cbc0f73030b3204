"""The harnesses of what is no dialogue: configuration, explanations, the vault, password hashes, PROXY headers.

What they are: octets to text or record, a call, and what must hold of it. What they are not: examples; the tests
beside the modules have those. A harness returns when all holds, and raises otherwise.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from proxy.accounts import passdb, passwords
from proxy.accounts.vault import Damaged, Vault, WrongKey
from proxy.config.document import MappingNode, Node, ScalarNode, SequenceNode, Value, parse, plain, render
from proxy.config.findings import ConfigurationError, Finding, Report
from proxy.config.read import Source, interpret
from proxy.explanations import MAX_RAW_CHARACTERS, Explanation, aadsts_codes, explain_exchange, explain_sign_in
from proxy.login import Credentials
from proxy.protocols import proxy_header
from proxy.protocols.proxy_header import HeaderReader, NotAHeader

# --- the configuration

MAX_DOCUMENT_OCTETS = 4_096
MAX_RENDERED_VALUES = 2_000  # writing YAML is slow, and nobody writes more at once
MAX_FINDING_CHARACTERS = 1_000  # a person reads it
CANARY = "Canary~Secret.1"
MAIN, EXTRA = Path("/nowhere/config.yaml"), Path("/nowhere/conf.d/more.yaml")
_SECRET_KEYS = ("client_secret", "password", "hash")
_BETWEEN_FILES = "\n%%%\n"


def read_configuration(octets: bytes) -> None:
    """YAML of any kind is a configuration or a list of findings; a secret stands in none of them."""
    text = octets[:MAX_DOCUMENT_OCTETS].decode("utf-8", "ignore")
    texts = text.split(_BETWEEN_FILES, 1)
    sources = [Source(file, each, None) for file, each in zip((MAIN, EXTRA), texts, strict=False)]
    findings: Sequence[Finding]
    try:
        findings = interpret(MAIN, sources, {"HOME": "/nowhere", "CANARY": CANARY}, Report()).findings
    except ConfigurationError as error:
        findings = error.findings
        assert any(finding.severity == "error" for finding in findings)
    else:
        assert all(finding.severity == "warning" for finding in findings)
    trees = [parse(source.file, source.text, Report()) for source in sources]
    ends = {source.file: len(source.text.splitlines()) + 1 for source in sources}
    for finding in findings:
        assert str(finding).isprintable(), "a finding is one line"
        assert len(str(finding)) <= MAX_FINDING_CHARACTERS
        assert 1 <= finding.line <= ends[finding.file], "a finding stands in its file"
    assert all(CANARY not in each.problem for each in findings if "not YAML" in each.problem), "a secret shown"
    whole = all(tree.entries or not source.text.strip() for tree, source in zip(trees, sources, strict=True))
    if whole and not any(CANARY in written for tree in trees for written in _open_texts(tree)):
        assert all(CANARY not in shown for each in findings for shown in (str(each), repr(each))), "a secret shown"
    for tree in trees:
        _write_again(tree)


def _open_texts(node: Node, key: str = "") -> Iterator[str]:
    """Keys and values that findings may quote."""
    match node:
        case MappingNode(entries=entries):
            for name, value in entries.items():
                yield name
                yield from _open_texts(value, name)
        case SequenceNode(items=items):
            for item in items:
                yield from _open_texts(item, key)
        case ScalarNode(text=text):
            if key not in _SECRET_KEYS:
                yield text


def _write_again(tree: MappingNode) -> None:
    """What is read, written and read again is the same."""
    if _size(tree) > MAX_RENDERED_VALUES:
        return
    values = _without_nothing(plain(tree))
    report = Report()
    again = parse(MAIN, render(values), report)
    assert report.findings == [], "what we write is no YAML"
    assert plain(again) == values, "what is written again differs"


def _size(node: Node) -> int:
    match node:
        case MappingNode(entries=entries):
            return 1 + sum(map(_size, entries.values()))
        case SequenceNode(items=items):
            return 1 + sum(map(_size, items))
    return 1


def _without_nothing(value: Value) -> Value:
    if isinstance(value, Mapping):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_nothing(item) for item in value]
    return value


# --- explanations


def explain(octets: bytes) -> None:
    """Any text of Microsoft's is explained, in one printable line of bounded length."""
    text = octets.decode("utf-8", "replace")
    error, _, rest = text.partition("\n")
    codes = aadsts_codes(text)
    for protocol in ("imap", "pop3", "smtp", rest[:8]):
        _judge(explain_exchange(protocol, text), text)
    _judge(explain_sign_in(error, codes, rest), text)
    _judge(explain_sign_in(error, (), rest), text)


def _judge(explanation: Explanation, text: str) -> None:
    named = explanation.for_(mailbox="m@example.com", user="{consent}", consent="{user}")
    for each in (explanation, named):
        assert each.cause
        assert each.remedy
        assert each.text.isprintable()
        assert len(each.text) <= 600 + MAX_RAW_CHARACTERS
    if explanation.known:  # names are filled in once: a user called `{consent}` stays that
        expected = explanation.text.count("{user}") + explanation.text.count("{consent}")
        assert named.text.count("{user}") + named.text.count("{consent}") == expected


# --- the vault

_KEY = bytes(range(32))
_RECORD = "u@example.com"
_PLAIN = b'{"refresh_token": "canary"}'


def open_sealed(octets: bytes) -> None:
    """Only what was sealed under this name opens, and it opens to what it was; all else is damaged or another's.

    The first octet chooses: the input as it is, or a sealed record changed by the input, three octets a change.
    """
    vault = Vault(_KEY)
    sealed = vault.seal(_RECORD, _PLAIN)
    assert vault.open(_RECORD, sealed) == _PLAIN
    given = octets[1:] if octets[:1] <= b"\x7f" else _changed(sealed, octets[1:])
    for record in (_RECORD, octets.decode("latin-1")):
        try:
            opened = vault.open(record, given)
        except (WrongKey, Damaged) as error:
            assert (record, given) != (_RECORD, sealed), "what is whole does not open"
            shown = repr(error)
        else:
            assert (record, opened, given) == (_RECORD, _PLAIN, sealed), "what was altered opens"
            shown = repr(vault)
        assert "canary" not in shown
    with suppress(WrongKey):
        Vault(_KEY[::-1]).open(_RECORD, sealed)
        raise AssertionError("another key opens it")


def _changed(sealed: bytes, changes: bytes) -> bytes:
    given = bytearray(sealed)
    for verb, where, value in zip(changes[::3], changes[1::3], changes[2::3], strict=False):
        position = where % (len(given) + 1)
        match verb % 4:
            case 0:
                given[position : position + 1] = bytes([value])
            case 1:
                given[position:position] = bytes([value])
            case 2:
                del given[position : position + value % 8]
            case 3:
                del given[position:]
    return bytes(given)


# --- password hashes

MAX_TRIED_OCTETS = 8 * 2**20  # hashes that need more memory are parsed, and not run


def read_hash(octets: bytes) -> None:
    """A PHC string is one that can be run, or a ValueError that shows none of it; any login can be looked up."""
    text = octets[:512].decode("utf-8", "replace")
    try:
        found = passwords.Hash.parse(text)
    except ValueError as error:
        said = str(error)
        assert not any(part in said for part in re.findall(r"[\w+/]{16,}", text)), "an error shows the hash"
    else:
        cost = found.cost
        assert (128 * cost.r) << cost.ln <= passwords.MAX_SCRYPT_OCTETS
        assert cost.p <= passwords.MAX_SCRYPT_P
        assert base64.b64encode(found.hash).decode()[:8] not in repr(found) or len(found.hash) < 8
        if (128 * cost.r) << cost.ln <= MAX_TRIED_OCTETS and cost.p <= 2:
            right = found.verify(b"canary")
            assert not right or len(found.hash) < 8, "a hash of another password"
    login, _, password = octets.partition(b"\n")
    for verbatim in (None, (password, login)):
        readings = passdb.read_credentials(Credentials(login, password, verbatim=verbatim))
        assert 1 <= len(readings) <= 2
        for folded, secret in readings:
            passdb._acceptable(folded, secret)


# --- a balancer's header

MAX_HEADER_OCTETS = proxy_header.HEAD_OCTETS + proxy_header.MAX_BLOCK_OCTETS


def read_proxy_header(octets: bytes) -> None:
    """However it is cut, a header says the same and ends at the same octet, and nothing behind that is asked for."""
    told, end, _ = _announced(octets, MAX_HEADER_OCTETS)
    assert told is None or (told.isascii() and told.isprintable())
    for most in (1, 2, 5):
        again, ends, asked = _announced(octets, most)
        assert (again, ends) == (told, end), "another cut, another header"
        assert asked <= (MAX_HEADER_OCTETS if end is None else end), "an octet behind the header is asked for"


def _announced(octets: bytes, most: int) -> tuple[str | None, int | None, int]:
    """The source, or what is wrong, or None for more; where the header ended, if it did; and how far it was read on."""
    reader, position, asked = HeaderReader(), 0, 0
    try:
        while reader.wanted:
            asked = max(asked, position + reader.wanted)
            piece = octets[position : position + min(most, reader.wanted)]
            if not piece:
                return None, None, asked
            reader.feed(piece)
            position += len(piece)
    except NotAHeader as wrong:
        return str(wrong), None, asked
    return str(reader.source), position, asked
