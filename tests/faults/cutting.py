"""The network fails: connections are closed, reset, swallowed or trickled in their middle; names are not found.

Not a test. Behind mailferry and before it, since both wires can break.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.faults import interrupted
from tests.faults.fleet import Fleet, Host
from tests.faults.programs import new_mail
from tests.faults.scene import Finding, Scene, scene
from tests.faults.strait import How, Storm, Strait, Toward

MAIL_OCTETS = 200_000
AFTER_OCTETS = 60_000  # a login with its TLS takes some 10,000
PATIENCE_S = 0.5  # of a program before a wire that swallows
TRICKLE_PATIENCE_S = 30.0
NO_NAMES_S = 0.8  # the second try comes after a second


def behind(host: Host, times: int) -> Finding:
    """Between mailferry and Exchange: each kind of storm, in each direction, `times` often."""
    with ExitStack() as stack:
        straits = {
            "imap": stack.enter_context(Strait(host.dovecot.imap_port)),
            "pop3": stack.enter_context(Strait(host.dovecot.pop3_port)),
            "smtp": stack.enter_context(Strait(host.postfix.port)),
        }
        ports = {protocol: strait.port for protocol, strait in straits.items()}
        one = stack.enter_context(scene(host, people=1, ports=ports))
        _storms(one, straits, times)
        return one.judge("network cut between mailferry and Exchange", sum(s.struck for s in straits.values()), HOWS)


def before(host: Host, times: int) -> Finding:
    """Between the mail program and mailferry."""
    with scene(host, people=1) as one, ExitStack() as stack:
        straits = {name: stack.enter_context(Strait(port)) for name, port in one.fleet.ports.items()}
        straight = one.programs.ports
        one.programs.ports = {name: strait.port for name, strait in straits.items()}
        _storms(one, straits, times)
        one.programs.ports = straight
        return one.judge("network cut between program and mailferry", sum(s.struck for s in straits.values()), HOWS)


HOWS = "closed, reset, blackholed, trickled"


def _storms(one: Scene, straits: dict[str, Strait], times: int) -> None:
    (person,) = one.people
    for _ in range(times):
        for how in How:
            patience_s = TRICKLE_PATIENCE_S if how is How.TRICKLE else PATIENCE_S
            with _storm(straits["imap"], how, "server"):
                whole = interrupted.append(one, person, new_mail(MAIL_OCTETS), _nothing, timeout_s=patience_s)
            one.expect(whole or how is not How.TRICKLE, "a slow APPEND does not come through")
            mail = one.lying(person, MAIL_OCTETS)
            with _storm(straits["imap"], how, "client"):
                whole = interrupted.fetch(one, person, mail, _nothing, timeout_s=patience_s)
            one.expect(whole or how is not How.TRICKLE, "a slow FETCH does not come through")
            with _storm(straits["smtp"], how, "server"):
                whole = interrupted.data(one, person, new_mail(MAIL_OCTETS), _nothing, timeout_s=patience_s)
            one.expect(whole or how is not How.TRICKLE, "a slow DATA does not come through")


@contextmanager
def _storm(strait: Strait, how: How, toward: Toward) -> Iterator[None]:
    strait.strike(Storm(how, toward, AFTER_OCTETS))
    try:
        yield
    finally:
        strait.calm()


def _nothing() -> None:
    """The storm strikes by itself."""


def names(host: Host, times: int) -> Finding:
    """DNS fails: the daemon has /etc/hosts and resolv.conf of its own, in which `localhost` comes and goes.

    All names fail, the sign-in service's too. Logins that meet it wait for its end; sessions go on.
    """
    files: dict[str, Path] = {}

    def prepare(fleet: Fleet) -> None:
        files.update(hosts=fleet.folder / "hosts", resolv=fleet.folder / "resolv.conf")
        files["hosts"].write_text(HOSTS)
        files["resolv"].write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        mount = f"mount --bind {files['hosts']} /etc/hosts && mount --bind {files['resolv']} /etc/resolv.conf"
        script = f'{mount} && exec "$@"'
        fleet.before = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")

    with host.identity.short_lived_tokens(), scene(host, people=1, prepare=prepare) as one:
        held = [one.programs.imap(person) for person in one.people]
        for _ in range(times):
            files["hosts"].write_text("# no names\n")
            known = threading.Timer(NO_NAMES_S, lambda: files["hosts"].write_text(HOSTS))
            known.start()
            one.expect(one.all_work(), "a login that met the failure did not wait for its end")
            known.join()
        for client in held:
            one.expect(client.noop()[0] == "OK", "a session did not outlive the failure")
            client.logout()
        one.expect(one.fleet.log_lines("mailbox not opened yet"), "DNS did not fail")
        return one.judge("DNS fails", times, f"{NO_NAMES_S:g} s each")


HOSTS = "127.0.0.1 localhost\n"
