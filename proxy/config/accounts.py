"""GROUND: `accounts`: local logins, their password hashes, and the mailboxes behind them.

A password is a scrypt hash in PHC form, as `mailferry password --hash` and passlib print it. Its cost is bounded here,
so that a hostile hash cannot eat the memory of who verifies it. Called by `read.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from proxy.config.document import MappingNode, Node, ScalarNode
from proxy.config.fields import ADDRESS, Reading, Section, nearest
from proxy.config.findings import quoted
from proxy.config.settings import PROTOCOL_NAMES, Account, App, LocalPassword

MAX_LOGIN_CHARACTERS = 254  # RFC 5321 §4.5.3.1: an address is no longer
MAX_CONNECTIONS = 10_000  # as many as the daemon holds at all (network/limits.py); Exchange allows far fewer
FIRST_PASSWORD = "main"  # noqa: S105 - a name
_SCRYPT = re.compile(
    r"\$scrypt\$ln=(?P<ln>[0-9]{1,3}),r=(?P<r>[0-9]{1,3}),p=(?P<p>[0-9]{1,3})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"  # salt of 8 to 64 octets, hash of 16 to 64, base64 without "="
)
_COSTS = {"ln": range(10, 18), "r": range(1, 17), "p": range(1, 5)}  # at most 128·r·2^ln = 256 MiB
_MAKE_HASH = "write what `mailferry password --hash` prints, in quotes"


def read_account(node: Node, apps: Mapping[str, App], reading: Reading) -> Account | None:
    """The account; None, and findings, when it names no login or no known app."""
    with Section(node, reading) as section:
        logins = _read_logins(section)
        app = _read_app(section, apps)
        passwords = _read_passwords(section, reading)
        mailbox = _read_address(section, "mailbox", logins[0] if logins else "")
        sign_in = _read_address(section, "sign_in", mailbox)
        protocols = section.protocols("protocols")
        imap_connections = section.integer("imap_connections", 16, 1, MAX_CONNECTIONS)
        smtp_connections = section.integer("smtp_connections", 3, 1, MAX_CONNECTIONS)
        messages_per_minute = section.integer("messages_per_minute", 30, 1, 10_000)
    if not logins or app is None:
        return None
    return Account(
        logins=logins,
        app=app,
        passwords=passwords,
        mailbox=mailbox,
        sign_in=sign_in,
        protocols=protocols,
        imap_connections=imap_connections,
        smtp_connections=smtp_connections,
        messages_per_minute=messages_per_minute,
    )


def _read_logins(section: Section) -> tuple[str, ...]:
    logins = tuple(filter(None, map(section.text_of, section.items("login"))))
    if not section.items("login"):
        section.missing("login", "write what the mail program sends as user name")
    for login in logins:
        if len(login) > MAX_LOGIN_CHARACTERS:
            section.error(
                section.at("login"), f"is longer than {MAX_LOGIN_CHARACTERS} characters", "write a shorter one"
            )
    return logins


def _read_app(section: Section, apps: Mapping[str, App]) -> App | None:
    name = section.text("app")
    if not section.has("app"):
        section.missing("app", "write the name of an app under `apps`")
    elif name and name not in apps:
        near = nearest(name, list(apps))
        remedy = f"did you mean {near}?" if near else "write the name of an app under `apps`"
        section.error(section.at("app"), f"there is no app {quoted(name)}", remedy)
    return apps.get(name)


def _read_address(section: Section, key: str, default: str) -> str:
    """A mail address. The default is an earlier key's value; a login that is no address needs a mailbox beside it."""
    text = section.text(key, default)
    if text and not ADDRESS.fullmatch(text) and (section.has(key) or key == "mailbox"):
        section.error(section.at(key), f"{quoted(text)} is not a mail address", f"write {key}: NAME@DOMAIN")
    return text


def _read_passwords(section: Section, reading: Reading) -> tuple[LocalPassword, ...]:
    items = section.items("password")
    if not items:
        section.missing("password", _MAKE_HASH)
    passwords: list[LocalPassword] = []
    for node in items:
        password = _read_password(node, section, reading)
        if any(password.name == other.name for other in passwords):
            section.error(
                node.place, f"a second password named {quoted(password.name)}", "give each device a name of its own"
            )
        passwords.append(password)
    return tuple(passwords)


def _read_password(node: Node, account: Section, reading: Reading) -> LocalPassword:
    """One password: the hash alone, or `{hash, name, protocols, from}`."""
    if not isinstance(node, MappingNode):
        return LocalPassword(_read_hash(node, account), FIRST_PASSWORD, PROTOCOL_NAMES, ())
    with Section(node, reading) as section:
        written = section.node("hash")
        if written is None:
            section.missing("hash", _MAKE_HASH)
        return LocalPassword(
            hash=_read_hash(written, section) if written else "",
            name=section.text("name", FIRST_PASSWORD),
            protocols=section.protocols("protocols"),
            networks=section.networks("from"),
        )


def _read_hash(node: Node, section: Section) -> str:
    """A scrypt PHC string. What is written there may be a password, so no finding shows it."""
    text = node.text if isinstance(node, ScalarNode) else ""
    found = _SCRYPT.fullmatch(text)
    if found is None or any(len(part) % 4 == 1 for part in text.split("$")[3:]):
        problem = "is not a scrypt hash of the form $scrypt$ln=14,r=8,p=1$SALT$HASH"
        section.error(node.place, problem, _MAKE_HASH)
        return ""
    for cost, allowed in _COSTS.items():
        if int(found[cost]) not in allowed:
            section.error(
                node.place, f"its cost {cost}={found[cost]} is not from {allowed[0]} to {allowed[-1]}", _MAKE_HASH
            )
    if int(found["ln"]) in _COSTS["ln"] and int(found["ln"]) >= 16 * int(found["r"]) > 0:
        # scrypt itself has no such cost
        section.error(node.place, f"its cost ln={found['ln']} is too high for r={found['r']}", _MAKE_HASH)
    return text
