"""Outlook's autodiscover file, kept on the machine itself, and the registry lines that point at it (CLIENTS 5.4).

Outlook asks its registry for such a file before it asks the network. The keys touch every account of the domain, so the
guide has them removed afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.app.programs import quoting
from proxy.app.programs.connection import Connection, Door
from proxy.app.programs.fill import fill
from proxy.app.programs.guide import File

FOLDER = r"C:\mailferry"
FILE = "autodiscover.xml"
_VERSIONS = ("12.0", "14.0", "15.0", "16.0")  # Outlook 2007, 2010, 2013, and 2016 with all that came after
_OTHER_SOURCES = (
    "ExcludeExplicitO365Endpoint",
    "ExcludeHttpsAutoDiscoverDomain",
    "ExcludeHttpsRootDomain",
    "ExcludeSrvRecord",
    "ExcludeHttpRedirect",
)


def autodiscover(connection: Connection, doors: Sequence[Door]) -> File:
    text = fill("autodiscover.xml", mailbox=connection.mailbox, login=connection.login, doors=doors)
    return File(FILE, "application/xml", text, newline="\r\n")


def registry_lines(connection: Connection) -> File:
    """Points Outlook at the file."""
    path = quoting.registry(rf"{FOLDER}\{FILE}")
    values = [f"{quoting.registry(connection.domain)}={path}", '"PreferLocalXML"=dword:00000001']
    values += [f'"{each}"=dword:00000001' for each in _OTHER_SOURCES]
    return _registry("autodiscover.reg", values)


def registry_removal(connection: Connection) -> File:
    """Takes every value of `registry_lines` away again."""
    values = [f"{quoting.registry(connection.domain)}=-", '"PreferLocalXML"=-']
    values += [f'"{each}"=-' for each in _OTHER_SOURCES]
    return _registry("autodiscover-remove.reg", values)


def _registry(name: str, values: Sequence[str]) -> File:
    """A registry file as Windows writes it itself: UTF-16 with a mark, and CRLF."""
    sections = (
        f"[HKEY_CURRENT_USER\\Software\\Microsoft\\Office\\{version}\\Outlook\\AutoDiscover]\n" + "\n".join(values)
        for version in _VERSIONS
    )
    text = "Windows Registry Editor Version 5.00\n\n" + "\n\n".join(sections) + "\n"
    return File(name, "text/plain", text, encoding="utf-16-le", newline="\r\n")
