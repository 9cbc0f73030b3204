"""The programs that can be told their settings, in the order of a list; page and command line ask here alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.app.programs import apple, facts, outlook, outlook_express, quoting, scanner, terminal, thunderbird
from proxy.app.programs.connection import Connection, Unreachable
from proxy.app.programs.guide import Guide


@dataclass(frozen=True, slots=True)
class Client:
    """One of them."""

    name: str
    """As `--for` takes it, and as the page's path has it."""
    title: str
    gives: str
    """What a person gets, in a few words."""
    make: Callable[[Connection], Guide] = field(repr=False)


CLIENTS = (
    Client("outlook", "Outlook 2003 to 2016, and newer", "steps to type; autodiscover file", outlook.outlook),
    Client("outlook-prf", "Outlook 2003 to 2016, profile file", "a PRF file", outlook.outlook_prf),
    Client(
        "outlook-express", "Outlook Express, Windows Live Mail", "an .iaf file; steps", outlook_express.outlook_express
    ),
    Client("thunderbird", "Thunderbird", "steps; autoconfig file", thunderbird.thunderbird),
    Client("apple", "Apple Mail", "a configuration profile (.mobileconfig); steps", apple.apple),
    Client("mutt", "mutt, neomutt", "lines for muttrc", terminal.mutt),
    Client("msmtp", "msmtp", "a msmtprc", terminal.msmtp),
    Client("mbsync", "mbsync (isync)", "an mbsyncrc", terminal.mbsync),
    Client("fetchmail", "fetchmail", "a fetchmailrc", terminal.fetchmail),
    Client("scanner", "A scanner, printer or other device", "values to type", scanner.scanner),
    Client("sheet", "Any other program, on paper", "a sheet with all values", facts.sheet),
    Client("json", "Scripts", "the facts as JSON", facts.as_json),
)


def find_client(name: str) -> Client | None:
    return next((client for client in CLIENTS if client.name == name), None)


def guide(client: Client, connection: Connection) -> Guide:
    """Raises: Unreachable: it cannot be told anything that works; the text says why."""
    try:
        return client.make(connection)
    except quoting.Unquotable as error:
        raise Unreachable(str(error)) from None
