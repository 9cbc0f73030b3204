"""Chooses, from the configuration, how the mail programs of one account reach us: a listener for each protocol.

On this machine the loopback listener; for a device in the corridor one that the network reaches. What is not there is
said with the reason. Pure: who reads the authority's file hands it in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from proxy.app.programs.connection import NAMES, Authority, Connection, Entrance, Security
from proxy.config import Account, Config
from proxy.config.settings import LOOPBACK_NAMES, PROTOCOL_NAMES, Listener, ListenerTls, ProtocolName

_OUR_ADDRESS = "(this machine's address on the network)"
_OFFERS = {
    ListenerTls.OFF: (Security.PLAIN,),
    ListenerTls.STARTTLS: (Security.PLAIN, Security.STARTTLS),
    ListenerTls.IMPLICIT: (Security.TLS,),
    ListenerTls.AUTO: (Security.PLAIN, Security.STARTTLS, Security.TLS),
}


def connect(
    config: Config, account: Account, authority: Authority | None, *, host: str = "", private: bool = False
) -> Connection:
    """What programs are told. `host` is the name by which other machines reach this one, where the person knows it."""
    whose = _Whose(account.name, account.mailbox, account.protocols, frozenset(map(str.casefold, account.logins)))
    return _connect(config, whose, authority, host, private)


def connect_anybody(config: Config, authority: Authority | None, domain: str) -> Connection:
    """The same for whoever asks, without a look at the accounts; the login is for the program to fill in."""
    whose = _Whose(f"anybody@{domain}", f"anybody@{domain}", PROTOCOL_NAMES, frozenset())
    return _connect(config, whose, authority, "", private=False)


@dataclass(frozen=True, slots=True)
class _Whose:
    login: str
    mailbox: str
    protocols: Sequence[ProtocolName]
    logins: frozenset[str]


def _connect(config: Config, whose: _Whose, authority: Authority | None, host: str, private: bool) -> Connection:
    entrances: dict[str, Entrance] = {}
    missing: dict[str, str] = {}
    notes: list[str] = []
    away = host not in ("", *LOOPBACK_NAMES)
    for protocol in PROTOCOL_NAMES:
        listener = _best(_serving(config, protocol), _is_open if away else _is_local)
        if protocol not in whose.protocols:
            missing[protocol] = (
                f"{NAMES[protocol]} is switched off for this account: its `protocols` are {', '.join(whose.protocols)}."
            )
        elif listener is None:
            missing[protocol] = f"No listener serves {NAMES[protocol]}: add one under `listeners` in the configuration."
        else:
            entrances[protocol] = _entrance(config, listener, host)
            notes += _listener_notes(config, listener, host)
            if away and not _is_open(listener):
                notes.append(
                    f"The {NAMES[protocol]} listener on {listener.address} port {listener.port} is reached from this "
                    f"machine alone. For a program elsewhere add one with this machine's address under `listeners`."
                )
    return Connection(
        login=whose.login,
        mailbox=whose.mailbox,
        entrances=entrances,
        missing=missing,
        authority=authority,
        private=private or away,
        device=_device(config, whose, host),
        page="http://{}:{}".format(*_page(config.page)) if config.page else "",
        notes=tuple(dict.fromkeys(notes)),
    )


def _serving(config: Config, protocol: ProtocolName) -> list[Listener]:
    """Listeners where a program logs in; what stands behind a balancer comes last."""
    found = [each for each in config.listeners if each.protocol == protocol and not each.implicit_account]
    return sorted(found, key=lambda each: bool(each.proxy_protocol))


def _best(listeners: Iterable[Listener], fits: Callable[[Listener], bool]) -> Listener | None:
    """The first that fits, else the first."""
    return min(listeners, key=lambda each: not fits(each), default=None)


def _device(config: Config, whose: _Whose, host: str) -> Entrance | None:
    """Where a device sends: a listener of its own for this account, else one on the network that takes logins."""
    if "smtp" not in whose.protocols:
        return None
    smtp = [each for each in config.listeners if each.protocol == "smtp" and _is_open(each)]
    own = [each for each in smtp if each.implicit_account and each.implicit_account.casefold() in whose.logins]
    others = [each for each in smtp if not each.implicit_account]
    found = next(iter(own + others), None)
    if found is None:
        return None
    if _ip_is_unspecified(found.address) and not host and config.hostname in LOOPBACK_NAMES:
        host = _OUR_ADDRESS
    return _entrance(config, found, host)


def _entrance(config: Config, listener: Listener, host: str) -> Entrance:
    plain, tls = (host, host) if host else _hosts(config, listener)
    offers = _OFFERS[listener.tls]
    if listener.require_tls:
        offers = tuple(each for each in offers if each is not Security.PLAIN)
    return Entrance(
        protocol=listener.protocol,
        host=plain,
        tls_host=tls,
        port=listener.port,
        offers=offers,
        local=_is_local(listener) and not _is_open(listener),
        listens=f"{listener.address} port {listener.port}",
        local_authority=listener.certificate is None,
        login_needed=listener.implicit_account is None,
    )


def _hosts(config: Config, listener: Listener) -> tuple[str, str]:
    """What a program is told: for plain connections, and for encrypted ones, where the certificate's name counts."""
    named = config.hostname not in LOOPBACK_NAMES
    match listener.address:
        case "localhost" | "127.0.0.1":
            return "127.0.0.1", "localhost"
        case "::1":
            return "::1", "localhost"
        case _ if named:
            return config.hostname, config.hostname
        case address if _ip_is_unspecified(address):
            return "127.0.0.1", "localhost"
        case address:
            return address, address


def _listener_notes(config: Config, listener: Listener, host: str) -> Iterable[str]:
    if listener.proxy_protocol:
        yield (
            f"The {NAMES[listener.protocol]} listener stands behind a balancer: type the balancer's own name and port, "
            "not this listener's."
        )
    if host or config.hostname not in LOOPBACK_NAMES or not _is_open(listener):
        return
    if _ip_is_unspecified(listener.address):
        yield "From another machine, this machine's own name or address stands in place of 127.0.0.1 and localhost."
    elif listener.certificate is None and listener.tls is not ListenerTls.OFF:
        yield (
            f"The certificate names localhost alone, so encrypted connections to {listener.address} are warned about. "
            "Write this machine's name or address as `hostname:` into the configuration, then: mailferry reload"
        )


def _page(page: tuple[str, int]) -> tuple[str, int]:
    host, port = page
    return (f"[{host}]" if ":" in host else host), port


def _is_local(listener: Listener) -> bool:
    """Programs of this machine reach it by loopback."""
    return listener.address == "localhost" or _ip_is_loopback(listener.address) or _ip_is_unspecified(listener.address)


def _is_open(listener: Listener) -> bool:
    """Other machines reach it."""
    return listener.address != "localhost" and not _ip_is_loopback(listener.address)


def _ip_is_loopback(address: str) -> bool:
    return address != "localhost" and ipaddress.ip_address(address).is_loopback


def _ip_is_unspecified(address: str) -> bool:
    return address != "localhost" and ipaddress.ip_address(address).is_unspecified
