"""The verb `administrator`: the administrator's kit of an account, on a terminal, as a mail, a script or JSON."""

from __future__ import annotations

import json
import textwrap
from argparse import Namespace
from dataclasses import asdict

from proxy.app.programs.administrator import Kit, kit_for
from proxy.app.verbs.lookup import find_account, find_config
from proxy.app.verbs.terminal import UsageError


def administrator(options: Namespace) -> int:
    """What an administrator must do for this account."""
    kit = kit_for(find_account(find_config(options), options.login))
    if options.json:
        print(json.dumps({**asdict(kit), "script": kit.script, "mail": kit.mail}, indent=2, ensure_ascii=False))
    elif options.mail:
        print(kit.mail, end="")
    elif options.script:
        if not kit.blocks:
            raise UsageError(f"{kit.mailbox} is a personal account: there is no administrator, and no PowerShell.")
        print(kit.script, end="")
    else:
        _print(kit)
    return 0


def _print(kit: Kit) -> None:
    print(f"For the administrator: {kit.mailbox} through mailferry's app {kit.app} ({kit.application_id})\n")
    print(f"Permissions: {', '.join(kit.permissions)}")
    if kit.consent:
        print(f"Consent for the organisation, opened by an administrator:\n\n    {kit.consent}\n")
    if kit.blocks:
        print("PowerShell (optional lines are comments):\n")
        print(textwrap.indent(kit.script, "    "))
    for note in kit.notes:
        print(textwrap.fill(f"Note: {note}", 100, subsequent_indent="      ", break_on_hyphens=False))
    if not kit.personal:
        print(f"\nAs a mail to send: mailferry administrator {kit.login} --mail")
