"""What is fuzzed: each target with its harness, the inputs it starts from, and words that a fuzzer would not guess.

The dialogues start from the scripts of `tests/dialogues`, so a new script is a new seed. What the fuzzer found beyond
them is kept in `corpus/`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from proxy.explanations import EXCHANGE_EXPLANATIONS, SIGN_IN_EXPLANATIONS
from proxy.protocols import sasl
from proxy.protocols.dialogue import Login, Ready
from tests.fuzz import dialogues, documents
from tests.fuzz.case import ENCODED_SECRET, HEADER_OCTETS, SECRET, written
from tests.fuzz.conversation import EXPIRES, FINAL, FIRST_READY, REFUSALS
from tests.protocols.scripts import BEARER, Expired, Script, Slow, scripts

ROOT = Path(__file__).parents[2]

_TLS_WORDS = (
    b"STARTTLS\r\n",
    b"STLS\r\n",
    b"\x16\x03\x01",
    b"PROXY TCP4 1 2 3 4\r\n",
    b"\0\r\n",
    b"GET / HTTP/1.1\r\n",
)
_SASL_WORDS = (b"AUTH PLAIN \xfc\r\n", b"AUTH LOGIN\r\n", b"AHUAcA==\r\n", b"dQ==\r\n", b"*\r\n", b"=\r\n", b"\xfc\r\n")
_WORDS = {
    "imap": (
        *(b"a LOGIN u \xfd\r\n", b'a LOGIN u "\xfd"\r\n', b"a LOGIN u {12+}\r\n\xfd\r\n", b'a LOGIN "d\\u" p\r\n'),
        *(b"a AUTHENTICATE PLAIN \xfc\r\n", b"a AUTHENTICATE LOGIN\r\n", b"a CAPABILITY\r\n", b"a STARTTLS\r\n"),
        *(
            b'a ID ("k" "v")\r\n',
            b"a NOOP\r\n",
            b"a ENABLE X\r\n",
            b"a SELECT x\r\n",
            b"{1}\r\n",
            b"{0+}\r\n",
            b"{1025+}",
        ),
        *(b"LOGIN", b"a LOGOUT\r\n", b'"', b"\\", b"\r\n", b"\n", b"\xfe\xff", b"\xfe\x20", *_TLS_WORDS, *_SASL_WORDS),
    ),
    "pop3": (
        *(b"USER u\r\n", b"PASS \xfd\r\n", b"CAPA\r\n", b"AUTH\r\n", b"STAT\r\n", b"APOP\r\n", b"QUIT\r\n", b"x\r\n"),
        *(b"\r\n", b"\n", b"\xfe\x02", b"\xfe\x30", *_TLS_WORDS, *_SASL_WORDS),
    ),
    "smtp": (
        *(
            b"EHLO c\r\n",
            b"HELO c\r\n",
            b"MAIL FROM:<a@b>\r\n",
            b"RCPT TO:<a@b>\r\n",
            b"DATA\r\n",
            b"BDAT 3 LAST\r\nabc",
        ),
        *(b"AUTH LOGIN dQ==\r\n", b"NOOP\r\n", b"RSET\r\n", b"HELP\r\n", b"VRFY x\r\n", b"EXPN x\r\n", b"QUIT\r\n"),
        *(b"BDAT 99999999999999999999\r\n", b"x\r\n", b"\r\n", b"\n", b"\xfe\x20", *_TLS_WORDS, *_SASL_WORDS),
    ),
}
_REPLIES = {
    "imap": (
        *(b"* OK hi\r\n", b"* OK [CAPABILITY IMAP4 SASL-IR] hi\r\n", b"* OK [CAPABILITY IMAP4] hi\r\n", b"F1 OK\r\n"),
        *(b"F2 OK \xfd\r\n", b"F2 OK [CAPABILITY \xfd] x\r\n", b"F2 NO \xfd\r\n", b"+ \r\n", b"+\r\n", b"+ \xfc\r\n"),
        *(
            b"* CAPABILITY IMAP4 \xfd\r\n",
            b"F3 OK\r\n",
            b"F4 OK\r\n",
            b"F4 BAD\r\n",
            b"F3 NO [INUSE]\r\n",
            b"* \xfd\r\n",
        ),
        *(b'* LIST () "" {3}\r\nabc\r\n', b"* BYE throttled\r\n", b"* 3 EXISTS\r\n", b"{65537}\r\n", b"* X {9}\r\n"),
        *(
            b"\r\n",
            b"\n",
            b"\xfe\xff",
            b"* PREAUTH\r\n",
            b"* NAMESPACE NIL NIL NIL\r\n",
            b"not connected",
            b"unavailable",
        ),
    ),
    "pop3": (
        *(b"+OK hi\r\n", b"+ \r\n", b"+\r\n", b"+OK \xfd\r\n", b"+ \xfc\r\n", b"-ERR \xfd\r\n", b"-ERR [IN-USE]\r\n"),
        *(b"-ERR [SYS/TEMP]\r\n", b"-ERR\r\n", b"\r\n", b"\n", b"\xfe\x30", b"+ eyJzdGF0dXMiOiI0MDEifQ==\r\n"),
    ),
    "smtp": (
        *(b"220 hi\r\n", b"250-x\r\n", b"250 AUTH XOAUTH2\r\n", b"250-STARTTLS\r\n", b"250-SIZE 1\r\n", b"334 \r\n"),
        *(
            b"334\r\n",
            b"334 \xfc\r\n",
            b"235 \xfd\r\n",
            b"235-\xfd\r\n",
            b"535 \xfd\r\n",
            b"432 4.3.2 x\r\n",
            b"454 x\r\n",
        ),
        *(b"\r\n", b"\n", b"\xfe\x30", b"220-\r\n", b"250 \xfd\r\n", b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n"),
    ),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is fuzzed."""

    name: str
    harness: Callable[[bytes], None]
    """Returns when all holds for this input, and raises otherwise."""
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
    header_octets: int = HEADER_OCTETS
    """How much of an input `case.py` reads as its header; 0: all of it is text."""


def _script_seeds(protocol: str, side: str) -> list[bytes]:
    return [seed(script) for script in scripts() if (script.protocol, script.side) == (protocol, side)]


def seed(script: Script) -> bytes:
    """A script of `tests/dialogues` as an input."""
    pieces = [piece for exchange in script.exchanges for piece in exchange.inputs]
    expires = any(isinstance(piece, Expired) for piece in pieces)
    speech = written(b"".join(piece for piece in pieces if isinstance(piece, bytes)))
    for spelling, octet in _secrets(script):
        speech = speech.replace(spelling, bytes([octet]))
    answers = bytes(
        FIRST_READY + 1 if isinstance(answer, Ready) else REFUSALS.index(answer.refused.refusal) | FINAL * answer.final
        for answer in (each.answer if isinstance(each, Slow) else each for each in script.answers)
    )
    header = bytes([_settings(script), 0x80 * expires, 0, 2]) + answers[:4].ljust(4, bytes([EXPIRES]))
    return header + speech


def _settings(script: Script) -> int:
    if script.side == "upstream":
        return dialogues.STARTTLS * script.upstream_settings.starttls
    front = script.front_settings
    return (
        dialogues.OFFERS_TLS * front.offers_tls
        | dialogues.TLS_ACTIVE * front.tls_active
        | dialogues.REQUIRES_TLS * front.requires_tls
        | dialogues.DEFERS_FAILURES * front.defers_failures
        | dialogues.IMPLICIT_ACCOUNT * front.implicit_account
        | 0x10 * bool(front.learnt)
    )


def _secrets(script: Script) -> Iterator[tuple[bytes, int]]:
    """How the secret is written in a script, and the octet that stands for it."""
    if script.side == "upstream":
        yield sasl.xoauth2(BEARER), ENCODED_SECRET
        yield BEARER.token.encode(), SECRET
    for exchange in script.exchanges:
        for action in exchange.actions:
            if isinstance(action, Login) and action.credentials and len(action.credentials.password) > 2:
                yield action.credentials.password, SECRET


def _without_header(protocol: str, side: str) -> list[bytes]:
    """Seeds of a reader: the same words, cut into single octets."""
    return [bytes(HEADER_OCTETS) + each[HEADER_OCTETS:] for each in _script_seeds(protocol, side)]


def _example_configurations() -> list[bytes]:
    example = (ROOT / "config.example.yaml").read_text()
    every_key = re.sub(r"^( *)# (?=[ -]*[a-z_]+:)", r"\1", example, flags=re.MULTILINE)
    secret = "apps: {a: {application_id: 11111111-1111-4111-8111-111111111111, client_secret: Canary~Secret.1}}\n"
    account = (
        "accounts: [{login: [a@b, c], app: a, mailbox: a@b, password: {hash: Canary~Secret.1, name: x, from: ::1}}]\n"
    )
    anchors = "page: &p [1, *p]\nlog: &l {level: info}\nstore: *l\n"
    texts = (example, every_key, secret + account, f"{secret}\n%%%\n{account}", anchors, "a: !!int 1\n--- \n", "")
    return [text.encode() for text in texts]


def _example_texts() -> list[bytes]:
    numbers = [
        f"{row.errors[0] if row.errors else 'x'}\nAADSTS{code}" for row in SIGN_IN_EXPLANATIONS for code in row.codes
    ]
    replies = [re.sub(r"\\[bw][*]?|[\\(]|\)\?.*|\|.*", "", row.pattern) for row in EXCHANGE_EXPLANATIONS]
    return [text.encode() for text in (*numbers[::4], *replies, "\x00\u00ef\u2028")]


def _example_hashes() -> list[bytes]:
    tail = "$SYllsO5EfStcpu9dSsj8DQ$RSUcpKWQEz9kPsDdoVtou97y3Gy3fD5/b3+0aKCJCfE"
    costs = ("ln=4,r=1,p=1", "ln=14,r=8,p=1", "ln=1,r=999,p=2", "ln=99,r=8,p=1", "ln=15,r=1,p=16")
    return [f"$scrypt${cost}{tail}".encode() for cost in costs] + [b"u\npass", b"\xfc\x81\n\xff", "İ\ne\u0301".encode()]


def _example_headers() -> list[bytes]:
    ends = b"\xc0\0\2\1\xc0\0\2\2\x30\x39\0\x8f"
    blocks = (
        b"\x20\0\0\0",
        b"\x21\x11\0\x0c" + ends,
        b"\x21\x11\0\x12" + ends + b"\4\0\3abc",
        b"\x21\x21\0\x24" + 3 * ends,
    )
    lines = (
        b"TCP4 192.0.2.1 192.0.2.2 49298 143",
        b"TCP6 ::ffff:192.0.2.1 2001:db8::1 65535 0",
        b"UNKNOWN",
        b"UNKNOWN x \r",
    )
    return [*(_SIGNATURE + block + b"\x16" for block in blocks), *(b"PROXY " + line + b"\r\n\x16" for line in lines)]


_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_HEADER_WORDS = (
    *(_SIGNATURE, b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN ", b"\r\n", b"\r", b"::ffff:", b"%lo", b"0", b"65536"),
    *(b"\x20\0", b"\x21\x11", b"\x21\x21", b"\x21\x31", b"\x10\0", b"\x10\1"),
)
_YAML_WORDS = (
    *(b"client_secret: ", b"Canary~Secret.1", b"\n%%%\n", b"&a ", b"*a", b"!!", b"<<: ", b"|\n", b">-\n", b"? ", b"- "),
    *(
        b"{env: CANARY}",
        b"{file: /etc/passwd}",
        b"{credential: x}",
        b"listeners:\n",
        b"apps:\n",
        b"accounts:\n",
        b"---\n",
    ),
    *(b"hash: ", b"password: ", b"tls: implicit", b"port: ", b"%YAML 1.1\n", b"null", b"~", b"true", b"\xe2\x80\xa8"),
)

_FRONTS = tuple(
    Target(f"{protocol}_front", dialogues.front_harness(protocol), partial(_script_seeds, protocol, "front"), words)
    for protocol, words in _WORDS.items()
)
_UPSTREAMS = tuple(
    Target(
        f"{protocol}_upstream",
        dialogues.upstream_harness(protocol),
        partial(_script_seeds, protocol, "upstream"),
        words,
    )
    for protocol, words in _REPLIES.items()
)
_READERS = (
    Target("imap_commands", dialogues.read_commands, partial(_without_header, "imap", "front"), _WORDS["imap"]),
    Target("imap_responses", dialogues.read_responses, partial(_without_header, "imap", "upstream"), _REPLIES["imap"]),
    Target("sasl", dialogues.answer_sasl, lambda: [bytes(HEADER_OCTETS) + b"".join(_SASL_WORDS)], _SASL_WORDS),
)
_DOCUMENTS = (
    Target("configuration", documents.read_configuration, _example_configurations, _YAML_WORDS, 0),
    Target(
        "explanations", documents.explain, _example_texts, (b"AADSTS", b"invalid_grant", b"{user}", b"{consent}"), 0
    ),
    Target("vault", documents.open_sealed, lambda: [b"", b"\x80", b"\x80\0\0\0", b"\x01" * 64, b"\x80\3\x22\0"], (), 0),
    Target("hashes", documents.read_hash, _example_hashes, (b"$scrypt$", b"ln=16,r=1,p=1", b"$AAAA", b"\xd9\xa1"), 0),
    Target("proxy_header", documents.read_proxy_header, _example_headers, _HEADER_WORDS, 0),
)
TARGETS = {target.name: target for target in (*_FRONTS, *_UPSTREAMS, *_READERS, *_DOCUMENTS)}
