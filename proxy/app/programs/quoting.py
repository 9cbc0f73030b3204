"""Values, written so that each format reads back exactly what was meant: no quote, backslash, `%` or `$` gets out.

Every function takes one line of printable text, as the configuration guarantees of logins and addresses; whatever could
end a line, and so begin a setting of its own, is refused. The tests give each the format's own reader.
"""

from __future__ import annotations

import re
import shlex
from urllib.parse import quote

_POWERSHELL_QUOTES = "'\u2018\u2019\u201a\u201b"
"""PowerShell takes each of these for a single quote."""
_BARE_IN_NETRC = re.compile(r"[A-Za-z0-9@._+-]+")


class Unquotable(ValueError):
    """This format has no way to hold the value; the text says which."""


def home_path(path: str) -> str:
    """A path below the home folder, for a shell: the tilde stays outside of quotes."""
    return f"~/{shlex.quote(_line(path))}"


def url(text: str) -> str:
    """One part of an address."""
    return quote(_line(text), safe="")


def mutt(text: str) -> str:
    """mutt and neomutt: `$` and backquotes are alive inside double quotes."""
    return _backslashed(text, '\\"$`')


def mbsync(text: str) -> str:
    return _backslashed(text, '\\"')


def fetchmail(text: str) -> str:
    """fetchmail ends a string at its first double quote, escaped or not: it must be told by number."""
    return '"' + _line(text).replace("\\", "\\\\").replace('"', "\\042") + '"'


def netrc(text: str) -> str:
    """A ~/.netrc, as fetchmail reads it: inside quotes nothing is escaped.

    Raises: Unquotable: it holds a double quote.
    """
    if _BARE_IN_NETRC.fullmatch(_line(text)):
        return text
    if '"' in text:
        raise Unquotable(f"A ~/.netrc has no way to hold the double quote of {text!r}.")
    return f'"{text}"'


def msmtp(text: str) -> str:
    """msmtp takes off the outermost quotes, and knows no escape."""
    return f'"{_line(text)}"'


def registry(text: str) -> str:
    """A REG_SZ in a .reg file."""
    return _backslashed(text, '\\"')


def powershell(text: str) -> str:
    """A string in which nothing is expanded."""
    return "'" + "".join(each * 2 if each in _POWERSHELL_QUOTES else each for each in _line(text)) + "'"


def prf(text: str) -> str:
    """A value of Outlook's profile file: it goes to the end of the line, and `%NAME%` is replaced in it.

    Raises: Unquotable: it holds a `%`, or blanks at its ends, which are cut off.
    """
    if "%" in _line(text):
        raise Unquotable(f"A profile file replaces what stands between % signs, so it cannot hold {text!r}.")
    if text != text.strip():
        raise Unquotable(f"A profile file cuts off blanks, so it cannot hold {text!r}.")
    return text


def comment(text: str) -> str:
    """In a comment nothing needs quoting, as long as it stays one line."""
    return _line(text)


def _backslashed(text: str, alive: str) -> str:
    return '"' + "".join(f"\\{each}" if each in alive else each for each in _line(text)) + '"'


def _line(text: str) -> str:
    if not text.isprintable():
        raise Unquotable(f"{text!r} holds a character that would end the line.")
    return text
