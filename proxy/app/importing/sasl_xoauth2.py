"""sasl-xoauth2, Postfix's plugin: /etc/sasl-xoauth2.conf, its token files, and Postfix's sasl_passwd that names them.

The first two are JSON objects; a token file's values stand over the configuration's. Whose a token file is says
sasl_passwd (`[smtp.office365.com]:587 alice@contoso.com:/etc/tokens/alice`), else its `user`, else its name. Tokens are
not sealed. Called by `readers.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.app.importing.endpoints import is_guid, provider, read_endpoint
from proxy.app.importing.found import Bench, Found, FoundAccount, FoundApp, Sealed, Spot, Text
from proxy.app.importing.ini import lines_of
from proxy.config.fields import ADDRESS

PROGRAM = "sasl-xoauth2"
DEFAULT_ENDPOINT = "https://accounts.google.com/o/oauth2/token"  # so without a token_endpoint it is Google's
_PASSWD_LINE = re.compile(r"(?P<where>\S+)\s+(?P<login>[^\s:]+@[^\s:]+):(?P<file>/\S*)\s*")
_OTHERS: dict[str, tuple[bool, str]] = {
    "always_log_to_syslog": (True, "log, in the configuration; never a token"),
    "log_to_syslog_on_failure": (True, "every refusal is logged"),
    "log_full_trace_on_failure": (False, "mailferry logs no token"),
    "proxy": (False, "set HTTPS_PROXY in the environment of mailferry"),
    "ca_bundle_file": (False, "the system's certificates are trusted; a private authority: ca_file of the app"),
    "ca_certs_dir": (False, "the system's certificates are trusted; a private authority: ca_file of the app"),
    "refresh_window": (True, "mailferry renews a token half an hour before its end"),
    "access_token": (False, "it lives for an hour; a new one is asked for"),
    "expiry": (False, "it goes with the access token"),
}


def recognises(text: Text) -> bool:
    """Whether this is a part of it: configuration, token file or password map."""
    values = _object(text.text)
    if values is None:
        return bool(_passwd(text))
    return "refresh_token" in values or ("client_id" in values and "client_secret" in values)


def refers_to(text: Text) -> list[str]:
    """The token files that a password map names."""
    return [entry.file for entry in _passwd(text)] if _object(text.text) is None else []


def read(texts: Sequence[Text]) -> Found:
    bench = Bench(PROGRAM)
    objects = [(text, values) for text in texts if (values := _object(text.text)) is not None]
    entries = [entry for text in texts if _object(text.text) is None for entry in _passwd(text)]
    tokens = [pair for pair in objects if "refresh_token" in pair[1]]
    settings = [pair for pair in objects if "refresh_token" not in pair[1]]
    common: Mapping[str, object] = settings[0][1] if settings else {}
    logins: set[str] = set()
    for text, values in tokens:
        _read_token_file(bench, text, values, common, entries, logins)
    for text, values in settings:
        app = _choose(common, {})
        if isinstance(app, FoundApp) and not tokens:
            bench.apps[app] = None
        _judge(bench, text, values, app, counts=values is common)
    for entry in entries:
        _judge_entry(bench, entry, [text.file for text, _ in tokens])
    for text in texts:
        if _object(text.text) is None:
            _judge_rest(bench, text)
    return bench.found()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of sasl_passwd."""

    text: Text
    line: int
    where: str
    login: str
    file: str


def _passwd(text: Text) -> list[_Entry]:
    found = [(number, _PASSWD_LINE.fullmatch(line)) for number, line in enumerate(lines_of(text.text), 1)]
    return [_Entry(text, number, one["where"], one["login"], one["file"]) for number, one in found if one]


def _object(text: str) -> dict[str, object] | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _read_token_file(
    bench: Bench,
    text: Text,
    values: Mapping[str, object],
    common: Mapping[str, object],
    entries: Sequence[_Entry],
    logins: set[str],
) -> None:
    app = _choose(common, values)
    whole = Spot(text.file, 1, len(lines_of(text.text)), text.file.name)
    login = _login(text.file, values, entries)
    if isinstance(app, str):
        bench.not_taken(whole, app)
        return
    if not login:
        bench.not_taken(whole, "nothing says whose token this is: add its line of Postfix's sasl_passwd")
        return
    if login.casefold() in logins:
        bench.not_taken(whole, f"another file holds the token of {login} already")
        return
    logins.add(login.casefold())
    token = _text(values, "refresh_token")
    line = _lines(text.text).get("refresh_token", 1)
    sealed = Sealed("clear", token) if token else None
    # The plugin speaks for Postfix alone; other programs of this login may join by the same account.
    bench.accounts.append(FoundAccount(text.file, line, login, app, ("smtp",), sealed))
    bench.apps[app] = None
    _judge(bench, text, values, app, counts=True, login=login)


def _login(file: Path, values: Mapping[str, object], entries: Sequence[_Entry]) -> str:
    named = [entry.login for entry in entries if entry.file == str(file) or Path(entry.file).name == file.name]
    candidates = (*named, _text(values, "user"), file.name.removesuffix(".json").removesuffix(".token"))
    return next((one for one in candidates if ADDRESS.fullmatch(one) and one.isprintable()), "")


def _choose(common: Mapping[str, object], values: Mapping[str, object]) -> FoundApp | str:
    """The app; or why there is none."""
    client_id = _text(values, "client_id") or _text(common, "client_id")
    secret = _text(values, "client_secret") if "client_secret" in values else _text(common, "client_secret")
    endpoint = _text(values, "token_endpoint") or _text(common, "token_endpoint") or DEFAULT_ENDPOINT
    authority = read_endpoint(endpoint)
    if isinstance(authority, str):
        return f"token_endpoint: {authority}"
    if not is_guid(client_id):
        return "client_id is no application id of Microsoft's"
    return FoundApp(
        application_id=client_id.lower(),
        account_types=authority.account_types,
        cloud=authority.cloud.value,
        authority=authority.own,
        client_secret=secret if secret.isprintable() else "",
    )


def _judge(
    bench: Bench, text: Text, values: Mapping[str, object], app: FoundApp | str, *, counts: bool, login: str = ""
) -> None:
    """A verdict for each key."""
    lines = _lines(text.text)
    end = len(lines_of(text.text))
    if isinstance(app, str) or not counts:
        why = app if isinstance(app, str) else "another file was read in its place"
        bench.not_taken(Spot(text.file, 1, end, text.file.name), why)
        return
    taken = {
        "client_id": "application_id",
        "token_endpoint": f"account_types: {app.account_types}" if not app.authority else f"authority: {app.authority}",
        "refresh_token": "handed to the store",
        "user": f"account {login}",
    }
    if app.client_secret:
        taken["client_secret"] = "it stands in conf.d, in a file of mode 0600"  # noqa: S105 - a verdict
    bench.taken(Spot(text.file, 1, end, text.file.name), f"account {login}" if login else "the app")
    for key in values:
        spot = Spot(text.file, lines.get(key, 1), lines.get(key, 1), key)
        if key in taken:
            bench.taken(spot, taken[key])
        elif key in _OTHERS:
            holds, why = _OTHERS[key]
            (bench.otherwise if holds else bench.not_taken)(spot, why)
        elif key == "client_secret":
            bench.not_taken(spot, "it is empty: a public client needs none")
        else:
            bench.not_taken(spot, "mailferry has nothing like it")


def _judge_entry(bench: Bench, entry: _Entry, token_files: Sequence[Path]) -> None:
    spot = Spot(entry.text.file, entry.line, entry.line, entry.login)
    host = entry.where.strip("[]").partition("]")[0].partition(":")[0]
    if who := provider(host):
        bench.not_taken(spot, f"{who} is another provider")
    elif any(str(file) == entry.file or file.name == Path(entry.file).name for file in token_files):
        bench.taken(spot, "says whose the token file is")
    else:
        bench.not_taken(spot, f"its token file {entry.file} was not found")


def _judge_rest(bench: Bench, text: Text) -> None:
    known = {entry.line for entry in _passwd(text)}
    for number, line in enumerate(lines_of(text.text), 1):
        if line.strip() and not line.strip().startswith("#") and number not in known:
            spot = Spot(text.file, number, number, "line")
            bench.not_taken(spot, "names no token file: a password of Postfix's own, perhaps")


def _lines(text: str) -> dict[str, int]:
    """The line of each key, as people and programs write such files: one key a line."""
    found: dict[str, int] = {}
    for number, line in enumerate(lines_of(text), 1):
        for key in re.findall(r'"([^"\\]+)"\s*:', line):
            found.setdefault(key, number)
    return found


def _text(values: Mapping[str, object], key: str) -> str:
    value = values.get(key)
    return value.strip() if isinstance(value, str) else ""
