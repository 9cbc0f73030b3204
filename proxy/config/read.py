"""GROUND: configuration files -> `Config`, or every reason why not (PRODUCT section 3).

The main file is read first, then `conf.d/*.yaml` beside it in the order of their names; those hold apps and accounts
only. What each part may hold is judged by its own reader: `listeners.py`, `apps.py`, `accounts.py`, `clouds.py`,
`sources.py`. Called by the command line and the daemon; `conf_d.py` asks it whether a change would load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proxy.config.accounts import read_account
from proxy.config.apps import read_app
from proxy.config.clouds import read_upstreams
from proxy.config.document import MappingNode, ScalarNode, parse
from proxy.config.fields import Reading, Section
from proxy.config.files import FileTrouble, exposure, read_regular, reason
from proxy.config.findings import ConfigurationError, Finding, Place, Report, quoted
from proxy.config.listeners import check_apart, default_listeners, read_listener, read_page
from proxy.config.notify import read_notify
from proxy.config.settings import Account, App, Config, Listener, Log
from proxy.config.sources import key_source

MAX_FILE_OCTETS = 8 * 2**20  # some 20,000 accounts; bounds the time that reading takes
NO_FILE = Path("(no configuration file)")
_MAIN_ONLY = ("state_dir", "page", "hostname", "listeners", "upstreams", "store", "key", "log", "notify")
_LEVELS: Mapping[str, Literal["debug", "info", "warning", "error"]] = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
}
_FORMATS: Mapping[str, Literal["text", "json"]] = {"text": "text", "json": "json"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that holds, and the warnings about it."""

    config: Config
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file as it is, or as it would be."""

    file: Path
    text: str = field(repr=False)
    exposed: str | None
    """How others can read it (`files.exposure`)."""


def read(file: Path | None, environ: Mapping[str, str]) -> Loaded:
    """The configuration of this main file and what is in `conf.d/` beside it; all defaults when there is no file.

    Raises:
        ConfigurationError: it does not hold; every finding at once, warnings too.
    """
    report = Report()
    return interpret(file, gather(file, report), environ, report)


def gather(file: Path | None, report: Report) -> list[Source]:
    """The main file, then conf.d's in the order of their names. Files that cannot be read become findings."""
    if file is None:
        return []
    folder = file.parent / "conf.d"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        names = []
    except OSError as error:
        report.error(Place(folder, 1), f"cannot be listed: {reason(error)}", "let mailferry read this folder")
        names = []
    others = [folder / name for name in names if name.endswith(".yaml") and not name.startswith(".")]
    return [source for each in (file, *others) if (source := read_source(each, report))]


def read_source(file: Path, report: Report) -> Source | None:
    """One file; None, and a finding, when it cannot be read."""
    try:
        content, state = read_regular(file, MAX_FILE_OCTETS)
        return Source(file, content.decode("utf-8-sig"), exposure(state))
    except FileTrouble as trouble:
        report.error(Place(file, 1), str(trouble), "name a file that is there and that mailferry can read")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        report.error(Place(file, line), "holds a character that is not UTF-8", "save the file as UTF-8")
    return None


def interpret(file: Path | None, sources: Sequence[Source], environ: Mapping[str, str], report: Report) -> Loaded:
    """The configuration that these sources are. Raises: ConfigurationError, as `read`."""
    reading = Reading(report, environ, {source.file: source.exposed for source in sources if source.exposed})
    trees = [parse(source.file, source.text, report) for source in sources]
    main = next((tree for tree in trees if tree.place.file == file), MappingNode(Place(file or NO_FILE, 1), {}))
    with Section(main, reading) as section:
        page = read_page(section)
        state_dir = section.path("state_dir") or _default_state_dir(reading)
        _read_store(section)
        apps, accounts = _read_people(section, [tree for tree in trees if tree is not main])
        listeners = _read_listeners(section, accounts, page)
        config = Config(
            file=file,
            state_dir=state_dir,
            hostname=section.host("hostname", "localhost"),
            listeners=listeners,
            apps=apps,
            accounts=accounts,
            upstreams=read_upstreams(section.node("upstreams") or _nothing(section.at("upstreams")), reading),
            key=key_source(section, state_dir),
            log=_read_log(section),
            page=page,
            notify=read_notify(section),
        )
    findings = _in_order(report.findings, sources)
    if report.errors:
        raise ConfigurationError(findings)
    return Loaded(config, tuple(findings))


def _read_listeners(
    section: Section, accounts: Iterable[Account], page: tuple[str, int] | None
) -> tuple[Listener, ...]:
    """The listeners; they come after the accounts of all files, since one may name any of them."""
    report = section.reading.report
    known = {login.casefold(): account for account in accounts for login in account.logins}
    listeners = list[Listener]() if section.has("listeners") else list(default_listeners())
    claims = [(each.address, each.port, section.at("listeners")) for each in listeners]
    for node in section.items("listeners"):
        errors = len(report.errors)
        listener = read_listener(node, known, section.reading)
        listeners.append(listener)
        if len(report.errors) == errors:  # else its address or port may be a stand-in
            claims.append((listener.address, listener.port, node.place))
    if not listeners:
        section.warning(section.at("listeners"), "there is no listener", "no mail program can reach mailferry")
    if page:
        claims.append((*page, section.at("page")))
    check_apart(claims, section.reading)
    return tuple(listeners)


def _read_people(main: Section, others: Iterable[MappingNode]) -> tuple[dict[str, App], tuple[Account, ...]]:
    """The apps and accounts of all files: apps first, since an account of any file may name any app."""
    reading = main.reading
    sections = [main, *(_only_people(tree, reading) for tree in others)]
    names = _Names(reading.report)
    apps: dict[str, App] = {}
    for section in sections:
        for name, node in section.named("apps").items():
            names.claim("app", name, node.place)
            apps.setdefault(name, read_app(name, node, reading))
    accounts: list[Account] = []
    for section in sections:
        if section.has("accounts"):
            _check_private(section)
        for node in section.items("accounts"):
            account = read_account(node, apps, reading)
            if account is not None:
                accounts.append(account)
                for login in account.logins:
                    names.claim("login", login, node.place)
    return apps, tuple(accounts)


def _check_private(section: Section) -> None:
    """Password hashes are no secret that opens a mailbox, but they can be guessed at by whoever reads them."""
    file = section.place.file
    if exposed := section.reading.exposed.get(file):
        problem = f"password hashes stand in this file, and {exposed}"
        section.warning(section.at("accounts"), problem, f"chmod 600 {file}")


def _only_people(tree: MappingNode, reading: Reading) -> Section:
    """A file of conf.d, whose other keys are told at once."""
    with Section(tree, reading) as section:
        section.node("apps")
        section.node("accounts")
        for key in _MAIN_ONLY:
            section.forbidden(
                key, "a file in conf.d holds apps and accounts only", "move it to the main configuration file"
            )
    return section


class _Names:
    """Names that may be defined once, in whatever case they are written."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._places: dict[tuple[str, str], Place] = {}

    def claim(self, kind: str, name: str, place: Place) -> None:
        key = (kind, name.casefold())
        if key in self._places:
            problem = f"{kind} {quoted(name)} is defined twice, first at {self._places[key]}"
            self._report.error(place, problem, "keep one of the two")
        else:
            self._places[key] = place


def _read_store(section: Section) -> None:
    node = section.node("store") or _nothing(section.at("store"))
    with Section(node, section.reading) as store:
        kind = store.choice("kind", {"sqlite": "sqlite", "postgresql": "postgresql"}, "sqlite")
        if kind == "postgresql":
            store.unserved("kind")
            store.node("dsn")
        else:
            store.unserved("dsn")


def _read_log(section: Section) -> Log:
    with Section(section.node("log") or _nothing(section.at("log")), section.reading) as log:
        return Log(level=log.choice("level", _LEVELS, "info"), format=log.choice("format", _FORMATS, "text"))


def _default_state_dir(reading: Reading) -> Path:
    given = reading.environ.get("STATE_DIRECTORY", "").split(":")[0]  # systemd separates several with ":"
    return Path(given) if given else reading.home / ".local/state/mailferry"


def _nothing(place: Place) -> ScalarNode:
    """What stands for a key that is not written."""
    return ScalarNode(place, "", plain=True)


def _in_order(findings: Iterable[Finding], sources: Sequence[Source]) -> list[Finding]:
    """File by file as they are read, line by line."""
    order = {source.file: index for index, source in enumerate(sources)}
    return sorted(findings, key=lambda finding: (order.get(finding.file, -1), finding.line))
