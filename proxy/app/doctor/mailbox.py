"""The logins at Exchange: reading by IMAP and POP3, and sending up to its sender, each with a verdict.

The daemon (or the command's own office) makes them, so that no token leaves it: `rehearsal.py`. Here its answers become
findings; a throttling Exchange is told as such. `examination.py` and `probing.py` call it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.app.answers import DeskError
from proxy.app.doctor import grant
from proxy.app.doctor.findings import Finding, Verdict, ok, warn
from proxy.app.doctor.scene import Scene
from proxy.config import Account
from proxy.login import Fault

NAMES = {"imap": "IMAP", "pop3": "POP3", "smtp": "Sending"}
_DONE = {
    "imap": "Exchange let it in, and the mailbox opens.",
    "pop3": "Exchange let it in.",
    "smtp": "Exchange let it in and takes {sender} as the sender; nothing was sent.",
}


def check_mailbox(scene: Scene, account: Account) -> Iterator[Finding]:
    """Every protocol of this account, but for those whose host is out of reach."""
    busy = False
    reached = 0
    for protocol in account.protocols:
        server = scene.config.upstream(account, protocol)
        if f"{server.host}:{server.port}" in scene.out_of_reach:
            continue
        try:
            answer = scene.ask("probe", login=account.name, protocol=protocol)
        except DeskError as error:
            remedy = "Restart the daemon if mailferry was updated; see its log."
            yield warn(protocol, f"{NAMES[protocol]} of {account.name}", error.text, Fault.MAILFERRY, remedy)
            continue
        finding = judge(account, protocol, answer)
        busy = busy or answer.get("refusal") == "busy"
        reached += bool(answer["ok"])
        yield finding
        if answer.get("step") == "token":
            return  # the others would say the same
    if reached and not busy:
        yield ok("throttling", f"Throttling of {account.name}", "Exchange does not complain of too many connections.")


def judge(account: Account, protocol: str, answer: Mapping[str, Any]) -> Finding:
    """The desk's answer to `probe`."""
    title = f"{NAMES[protocol]} of {account.name}"
    if answer["ok"]:
        done = _DONE[protocol].format(sender=account.mailbox)
        said = f"Exchange said: {answer['said']}" if answer["said"] else ""
        return ok(protocol, title, f"{done} ({answer['took_ms']} ms)", *filter(None, [said]))
    if answer["step"] == "token":
        return grant.refused(account, answer)
    check = "throttling" if answer["refusal"] == "busy" else protocol
    verdict = Verdict.WARN if answer["refusal"] == "busy" else Verdict.FAIL
    at = f"It got as far as: {answer['step']}."
    said = f"The server's own words: {answer['detail']}" if answer["detail"] else ""
    return Finding(
        check,
        verdict,
        title,
        answer["cause"],
        Fault(answer["fault"]),
        answer["remedy"],
        answer["who"],
        tuple(filter(None, [at, said])),
    )
