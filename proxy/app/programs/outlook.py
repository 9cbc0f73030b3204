"""Outlook 2003 to 2016 and newer: steps to type, and the autodiscover file that newer versions read (CLIENTS 5.2, 5.4).

Its words: "SSL" is TLS from the start, "TLS" is STARTTLS, "None" is none.
"""

from __future__ import annotations

from proxy.app.programs import quoting
from proxy.app.programs.autodiscover import FILE, FOLDER, autodiscover, registry_lines, registry_removal
from proxy.app.programs.connection import NAMES, Connection, Door, Security, Unreachable
from proxy.app.programs.fill import fill
from proxy.app.programs.guide import File, Guide, Needs, Part, Step

_ENCRYPTION = {Security.PLAIN: "None", Security.STARTTLS: "TLS", Security.TLS: "SSL"}
_OLDER = {Security.PLAIN: "no", Security.STARTTLS: "it cannot: it knows no STARTTLS", Security.TLS: "yes"}
_PROGRAM = "Outlook"
_PRF_KNOWS = (Security.PLAIN, Security.TLS)


def outlook(connection: Connection) -> Guide:
    """Raises: Unreachable."""
    incoming = connection.incoming(_PROGRAM)
    smtp = connection.find("smtp", _PROGRAM)
    parts = [
        *_trust(connection, incoming, smtp),
        Part("Outlook 2007, 2010, 2013, 2016", tuple(_steps(connection, incoming, smtp))),
        Part("Outlook 2003", (_older(incoming, smtp),)),
        Part("Outlook 2016 and newer, which search for settings themselves", tuple(_newer(connection))),
        Part("Afterwards", (_sent_items(), _test())),
    ]
    doors = [door for door in (incoming, smtp) if door is not None]
    files = (autodiscover(connection, doors), registry_lines(connection), registry_removal(connection))
    return Guide("Outlook", tuple(parts), files, _notes(connection, incoming, smtp))


def outlook_prf(connection: Connection) -> Guide:
    """A profile file. Raises: Unreachable: it cannot hold what is needed."""
    incoming = connection.incoming("Outlook's profile file", _PRF_KNOWS)
    smtp = connection.find("smtp", _PROGRAM)
    try:
        text = fill(
            "outlook.prf",
            login=connection.login,
            mailbox=connection.mailbox,
            stem=connection.file_stem,
            incoming=incoming,
            imap=incoming.protocol == "imap",
            smtp=smtp,
        )
    except quoting.Unquotable as error:
        raise Unreachable(f"{error} Type the values by hand: choose Outlook without a profile file.") from None
    encoding = "ascii" if text.isascii() else "utf-16-le"
    file = File(f"{connection.file_stem}.prf", "text/plain", text, encoding=encoding, newline="\r\n")
    steps = (
        Step("Put the file on the Windows machine, for example into C:\\mailferry.", file=file.name),
        Step(
            "Close Outlook. Press Windows+R, and type this with the file's real place. It makes a profile of its own, "
            "and leaves yours alone.",
            code=f'outlook.exe /importprf "{FOLDER}\\{file.name}"',
        ),
        Step(
            "To choose between profiles: Control Panel > Mail > Show Profiles > Prompt for a profile to be used.",
        ),
        Step(f"At the first send/receive Outlook asks for the local password of {connection.login}; let it be saved."),
        _sent_items(),
    )
    parts = (*_trust(connection, incoming, smtp), Part("Outlook 2003 to 2016, by a profile file", steps))
    return Guide("Outlook, profile file", parts, (file,), _notes(connection, incoming, smtp))


def _steps(connection: Connection, incoming: Door, smtp: Door | None) -> list[Step]:
    servers = [
        ("Your Name", "as others shall see it"),
        ("E-mail Address", connection.mailbox),
        ("Account Type", NAMES[incoming.protocol]),
        ("Incoming mail server", incoming.host),
        ("Outgoing mail server (SMTP)", smtp.host if smtp else incoming.host),
        ("User Name", connection.login),
        ("Password", "the local password, not the one at Microsoft"),
        ("Remember password", "yes"),
        ("Require logon using Secure Password Authentication (SPA)", "no"),
    ]
    ports = [
        (f"Incoming server ({NAMES[incoming.protocol]})", str(incoming.port)),
        ("Use the following type of encrypted connection", _ENCRYPTION[incoming.security]),
    ]
    if smtp is not None:
        ports += [
            ("Outgoing server (SMTP)", str(smtp.port)),
            ("Use the following type of encrypted connection, below it", _ENCRYPTION[smtp.security]),
        ]
    ports.append(("Server Timeouts", "two minutes or more"))
    if incoming.protocol == "imap":
        ports.append(("Root folder path", "leave it empty"))
    else:
        ports.append(("Leave a copy of messages on the server", "yes"))
    steps = [
        Step(
            "Open Control Panel > Mail > E-mail Accounts > New (in Outlook 2007: Tools > Account Settings > New). "
            "Choose Manual setup, then POP or IMAP (in 2007 and 2010: Internet E-mail)."
        ),
        Step("Fill in:", tuple(servers)),
        Step("Open More Settings > Advanced, and set:", tuple(ports)),
    ]
    if smtp is not None:
        steps.insert(
            2,
            Step(
                "Open More Settings > Outgoing Server:",
                (
                    ("My outgoing server (SMTP) requires authentication", "yes"),
                    ("Use same settings as my incoming mail server", "yes"),
                ),
            ),
        )
    return steps


def _older(incoming: Door, smtp: Door | None) -> Step:
    values = []
    for door in (incoming, smtp):
        if door is not None:
            name = NAMES[door.protocol]
            values.append((f"{name}: requires an encrypted connection (SSL)", _OLDER[door.security]))
    return Step(
        "Tools > E-mail Accounts > Add a new e-mail account: the same values. It knows SSL or nothing, and on Windows "
        "XP no encryption that is still in use: leave it off on this machine.",
        tuple(values),
    )


def _newer(connection: Connection) -> list[Step]:
    return [
        Step(
            "File > Add Account, type the address, open Advanced options, tick Let me set up my account manually, and "
            "choose IMAP or POP. If Outlook goes to Microsoft's own sign-in instead, go on with the next steps.",
            (("Email address", connection.mailbox),),
        ),
        Step(f"Make the folder {FOLDER}, and put this file there.", file=FILE),
        Step(
            "Close Outlook, and open this file with a double click: it tells Outlook to take the settings of "
            f"{connection.domain} from there. This touches every account of that domain, so it is undone below.",
            file="autodiscover.reg",
        ),
        Step("Start Outlook, add the account as above, and give the local password."),
        Step(
            "Then open this file with a double click: it takes those registry lines away again.",
            file="autodiscover-remove.reg",
        ),
        Step(
            "The “new Outlook” for Windows is a web page that keeps mail in Microsoft's cloud: it cannot reach this "
            "machine. Switch it back to classic Outlook."
        ),
    ]


def _sent_items() -> Step:
    return Step(
        "File > Account Settings > Change > More Settings > Sent Items (2013 and newer): choose Do not save copies of "
        "sent items. Exchange keeps them itself, and a second copy would stand there twice."
    )


def _test() -> Step:
    return Step("Test Account Settings sends a real message to yourself; it is to be expected.")


def _trust(connection: Connection, *doors: Door | None) -> list[Part]:
    if connection.trusts(*doors) is None:
        return []
    step = Step(
        "Have Windows trust this machine's certificate: open it with a double click, choose Install Certificate > "
        "Current User > Place all certificates in the following store > Trusted Root Certification Authorities.",
        needs=Needs.CERTIFICATE,
    )
    return [Part("First, trust this machine's certificate", (step,))]


def _notes(connection: Connection, incoming: Door, smtp: Door | None) -> tuple[str, ...]:
    notes = (*connection.trust_notes(incoming, smtp), *connection.notes)
    if smtp is not None:
        return notes
    return (f"It can read, and not send. {connection.missing.get('smtp', 'No SMTP listener fits it.')}", *notes)
