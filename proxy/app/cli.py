"""The verbs of the command line (PRODUCT section 2) as argparse; thin: parse, call `verbs/`, tell errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from proxy import __version__, log
from proxy.app.answers import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, DeskError
from proxy.app.importing.found import KINDS
from proxy.app.verbs.terminal import UsageError
from proxy.config import ConfigurationError
from proxy.config.settings import PROTOCOL_NAMES, Cloud, Flow


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. Errors go to standard error, in words for a person."""
    options = parser().parse_args(arguments)
    log.start("error", "text")
    try:
        exit_code = _command(options.command)(options)
        sys.stdout.flush()  # here, where a broken pipe is caught
    except ConfigurationError as error:
        return _fail("\n".join(str(finding) for finding in error.findings), EXIT_USAGE)
    except DeskError as error:
        return _fail(error.text, error.exit_code)
    except UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except (KeyboardInterrupt, EOFError):
        return _fail("Interrupted.", EXIT_INTERRUPTED)
    except BrokenPipeError:  # `mailferry account list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return exit_code


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """The verb's function. Only its own module is loaded: together they take longer than most of them work."""
    module, _, function = name.partition(".")
    return cast("Callable[[argparse.Namespace], int]", getattr(import_module(f"proxy.app.verbs.{module}"), function))


def parser() -> argparse.ArgumentParser:
    """All verbs; `options.command` names what to call, in `verbs/`."""
    top = argparse.ArgumentParser(
        prog="mailferry",
        description="Lets old mail programs reach Microsoft 365 and Outlook.com.",
        epilog="First time? Run `mailferry demo`, then follow the README from `mailferry app add`.",
    )
    top.add_argument("--version", action="version", version=f"mailferry {__version__}")
    _config_option(top, default=None)
    verbs = _Verbs(top)

    verbs.add("serve", "serving.serve", "run the daemon, in the foreground", "mailferry serve")
    verbs.add("reload", "serving.reload", "have the daemon read the configuration again", "mailferry reload")
    demo = verbs.add("demo", "serving.demo", "try everything on a practice harbour", "mailferry demo --once")
    demo.add_argument("--once", action="store_true", help="make the round trip itself, then exit with 0 or 1")
    check = verbs.add("check", "configuring.check", "read the configuration and say what is wrong", "mailferry check")
    check.add_argument("--json", action="store_true", help="findings as JSON")

    app = verbs.group("app", "app registrations in Microsoft Entra")
    _app_options(app.add("add", "configuring.app_add", "enter a registration", "mailferry app add work"))
    app.add("list", "configuring.app_list", "show them", "mailferry app list").add_argument(
        "--json", action="store_true"
    )
    change = app.add("change", "configuring.app_change", "change one", "mailferry app change work --disable")
    _app_options(change)
    change.add_argument(
        "--no-client-secret", action="store_true", help="take the secret away: a public client has none"
    )
    switch = change.add_mutually_exclusive_group()
    switch.add_argument(
        "--enable", dest="enabled", action="store_true", default=None, help="let people sign in with it"
    )
    switch.add_argument(
        "--disable", dest="enabled", action="store_false", default=None, help="its accounts stand still"
    )
    removal = app.add("remove", "configuring.app_remove", "forget one", "mailferry app remove work")
    removal.add_argument("name", metavar="NAME")

    account = verbs.group("account", "mailboxes and their local logins")
    add = account.add("add", "configuring.account_add", "add one, and print its local password once", "", login=True)
    add.add_argument("--app", metavar="NAME", help="its app; needless if there is only one")
    add.add_argument("--mailbox", metavar="ADDRESS", help="the mailbox to open, if it is not LOGIN (shared mailboxes)")
    add.add_argument("--sign-in", metavar="ADDRESS", help="who signs in, if it is not LOGIN")
    add.add_argument("--protocols", metavar="LIST", type=_protocols, help="any of imap,pop3,smtp; default all")
    listing = account.add("list", "configuring.account_list", "every account and its state", "mailferry account list")
    listing.add_argument("--json", action="store_true")
    show = account.add("show", "configuring.account_show", "one account in full", "", login=True)
    show.add_argument("--json", action="store_true")
    changing = account.add("change", "configuring.account_change", "change one; '' for the default", "", login=True)
    changing.add_argument("--app", metavar="NAME", help="its app")
    changing.add_argument("--mailbox", metavar="ADDRESS", help="the mailbox to open")
    changing.add_argument("--sign-in", metavar="ADDRESS", help="who signs in")
    changing.add_argument("--protocols", metavar="LIST", type=_protocols, help="any of imap,pop3,smtp")
    account.add("remove", "configuring.account_remove", "forget it, and its tokens", "", login=True)
    test = account.add("test", "probing.account_test", "try IMAP, POP3 and sending at Exchange", "", login=True)
    test.add_argument("--json", action="store_true", help="the verdicts as JSON")

    sign_in = verbs.add("sign-in", "signing_in.sign_in", "sign in with Microsoft", "", login=True)
    ways = sign_in.add_mutually_exclusive_group()
    for way, help_text in (
        ("browser", "open the browser of this machine"),
        ("device", "show a code to enter on any device"),
        ("paste", "show an address to open anywhere; paste the final address back"),
    ):
        ways.add_argument(f"--{way}", dest="way", action="store_const", const=way, help=help_text)
    verbs.add("sign-out", "signing_in.sign_out", "forget the tokens", "", login=True)
    doctor = verbs.add(
        "doctor", "probing.doctor", "find out why it does not work", "mailferry doctor alice@contoso.com"
    )
    doctor.add_argument("login", metavar="LOGIN", nargs="?", help="this account alone; without it, all")
    doctor.add_argument("--bundle", metavar="FILE", help="write a report without names and secrets to this file")
    doctor.add_argument("--json", action="store_true", help="the findings as JSON")

    password = verbs.add(
        "password", "configuring.password", "make a new local password", "mailferry password alice@contoso.com"
    )
    password.add_argument("login", metavar="LOGIN", nargs="?", help="the account's login")
    password.add_argument("--hash", action="store_true", help="read a password from standard input, print its hash")
    password.add_argument("--name", metavar="DEVICE", help="a further password, for this device")
    password.add_argument("--protocols", metavar="LIST", type=_protocols, help="what it is good for; with --name")
    password.add_argument(
        "--from", dest="networks", metavar="CIDR", action="append", help="from where; with --name; repeatable"
    )
    password.add_argument("--remove", metavar="DEVICE", help="take a device's password away")

    example = "mailferry settings alice@contoso.com --for thunderbird"
    _settings_options(
        verbs.add("settings", "equipping.settings", "what to type into a mail program, or its file", example)
    )
    _ca_options(
        verbs.add("ca", "authority.ca", "the certificate that mail programs trust", "mailferry ca --steps windows")
    )
    example = "mailferry administrator alice@contoso.com --mail"
    _kit_options(verbs.add("administrator", "kit.administrator", "what an administrator must switch on", example))

    _import_options(
        verbs.add(
            "import",
            "moving_in.import_",
            "take over from another program",
            "mailferry import emailproxy.config --dry-run",
        )
    )

    example = "mailferry log alice@contoso.com --for 10m"
    _log_options(verbs.add("log", "watching.log", "have everything logged about one account, for a while", example))

    key = verbs.group("key", "the key that seals the stored sign-ins", example="rotate")
    key.add("rotate", "keeping.key_rotate", "seal every stored sign-in with a new key", "mailferry key rotate")
    backup = verbs.add(
        "backup",
        "keeping.backup",
        "write every stored sign-in into one file, sealed with a passphrase",
        "mailferry backup mailferry.backup",
    )
    _backup_options(backup, "take the files of conf.d along")
    restore = verbs.add(
        "restore",
        "keeping.restore",
        "bring back what a backup holds and is not here, or older here",
        "mailferry restore mailferry.backup",
    )
    _backup_options(restore, "bring back the files of conf.d, too")
    restore.add_argument("--replace", action="store_true", help="take the backup's even where what is here is newer")
    restore.add_argument("--check", action="store_true", help="verify the backup and say what would be done")

    page = verbs.add("page", "opening.page", "print a link that opens the set-up page once", "mailferry page --open")
    page.add_argument("--open", action="store_true", help="open it in this machine's browser, too")
    page.add_argument("--json", action="store_true", help="the link as JSON")
    return top


class _Verbs:
    """Adds verbs to a parser; each takes `--config` too, so that it may stand before or after."""

    def __init__(self, parent: argparse.ArgumentParser, prefix: str = "mailferry") -> None:
        self._prefix = prefix
        self._verbs = parent.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(
        self, name: str, command: str, help_text: str, example: str, *, login: bool = False
    ) -> argparse.ArgumentParser:
        example = example or f"{self._prefix} {name} alice@contoso.com"
        verb = self._add(name, help_text, example)
        verb.set_defaults(command=command)
        if login:
            verb.add_argument("login", metavar="LOGIN", help="what the mail program sends as user name")
        return verb

    def group(self, name: str, help_text: str, *, example: str = "list") -> _Verbs:
        prefix = f"{self._prefix} {name}"
        return _Verbs(self._add(name, help_text, f"{prefix} {example}"), prefix)

    def _add(self, name: str, help_text: str, example: str) -> argparse.ArgumentParser:
        description = f"{help_text[0].upper()}{help_text[1:]}."
        added = self._verbs.add_parser(name, help=help_text, description=description, epilog=f"Example: {example}")
        _config_option(added, default=argparse.SUPPRESS)
        return added


def _config_option(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument("--config", metavar="FILE", type=Path, default=default, help="the main configuration file")


def _app_options(add: argparse.ArgumentParser) -> None:
    add.add_argument("name", metavar="NAME", help="your name for it")
    add.add_argument("--application-id", metavar="GUID", help="the Application (client) ID")
    add.add_argument(
        "--account-types", metavar="TYPES", help="consumers, organizations, common, a directory id or domain"
    )
    add.add_argument("--client-secret-file", metavar="FILE", help="a private file with the secret's Value")
    add.add_argument("--client-secret-expires", metavar="DATE", help="its end as the portal shows it: 2027-05-01")
    add.add_argument("--client-secret-stdin", action="store_true", help="read the secret's Value from standard input")
    add.add_argument("--certificate", nargs=2, metavar=("PEM", "KEY"), help="instead of a secret")
    add.add_argument("--flow", choices=[flow.value for flow in Flow], help="delegated (people sign in) or app_only")
    add.add_argument("--cloud", choices=[cloud.value for cloud in Cloud], help="default: global")
    add.add_argument("--redirect-uri", metavar="URI", help="default: http://localhost")
    add.add_argument("--authority", metavar="URL", help="a private sign-in service: its whole authority address")
    add.add_argument("--ca-file", metavar="FILE", help="trust this certificate authority for it")


def _settings_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("login", metavar="LOGIN", help="the account's login")
    verb.add_argument("--for", dest="client", metavar="PROGRAM", help="which one; without it, they are listed")
    verb.add_argument("--output", metavar="FILE", help="write the program's file here, or the steps")
    verb.add_argument("--host", metavar="NAME", help="how another machine, where the program runs, calls this one")
    verb.add_argument("--tls", action="store_true", help="encrypt on this machine, too")
    verb.add_argument("--json", action="store_true", help="steps and files as JSON")


def _ca_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--output", metavar="FILE", help="write a copy of the certificate here (PEM)")
    verb.add_argument("--steps", metavar="SYSTEM", help="how windows, macos, ios, debian, thunderbird, … trust it")
    verb.add_argument(
        "--acknowledge", action="store_true", help="a change is known to all programs: announce it no more"
    )
    verb.add_argument("--json", action="store_true")


def _kit_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("login", metavar="LOGIN", help="the account's login")
    verb.add_argument("--mail", action="store_true", help="a mail to send to the administrator")
    verb.add_argument("--script", action="store_true", help="the PowerShell lines alone")
    verb.add_argument("--json", action="store_true")


def _import_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "files", metavar="FILE", nargs="+", help="a file or folder of email-oauth2-proxy, sasl-xoauth2 or DavMail"
    )
    verb.add_argument("--kind", choices=KINDS, help="whose file it is, where that does not show")
    verb.add_argument("--dry-run", action="store_true", help="say everything, write nothing")
    verb.add_argument("--json", action="store_true", help="all that is said as JSON")
    verb.add_argument("--app", metavar="NAME", help="the app for accounts that bring none of their own")
    verb.add_argument("--ca-file", metavar="FILE", help="trust this certificate authority for private sign-in services")
    verb.add_argument(
        "--passwords-stdin",
        action="store_true",
        help="read the mail programs' passwords, which open the tokens, from standard input: one a line, in the "
        "accounts' order",
    )


def _log_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("whom", metavar="LOGIN", nargs="?", help="or an IP address; without it: who is watched now")
    time_help = "how long: 90s, 10m, 1h, which is the longest; default 10m"
    verb.add_argument("--for", dest="for_time", metavar="TIME", default="10m", help=time_help)
    verb.add_argument("--stop", action="store_true", help="end it now")
    verb.add_argument("--json", action="store_true", help="who is watched as JSON")


def _backup_options(verb: argparse.ArgumentParser, configuration: str) -> None:
    verb.add_argument("file", metavar="FILE", type=Path, help="the backup; its passphrase is asked for, or piped in")
    verb.add_argument("--configuration", action="store_true", help=configuration)


def _protocols(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in PROTOCOL_NAMES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(PROTOCOL_NAMES)}")
    return names


def _fail(text: str, exit_code: int) -> int:
    print(log.marked(f"mailferry: {text}" if "\n" not in text else text), file=sys.stderr)
    return exit_code
