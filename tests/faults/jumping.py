"""The machine's clock jumps by an hour, forth and back, as by NTP after a bad battery. Not a test.

The daemon's wall clock alone is moved (libfaketime); its steady clock goes on, and so do the sign-in service and the
mail servers, which are other machines.
"""

from __future__ import annotations

from pathlib import Path

from tests.faults.fleet import Fleet, Host
from tests.faults.scene import Finding, scene

HOUR_S = 3600
LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")


def clock(host: Host, times: int) -> Finding:
    """An hour forth, an hour back, home again; with tokens that live for an hour, then with ones that end at once."""
    offsets: list[Path] = []

    def prepare(fleet: Fleet) -> None:
        offset = fleet.folder / "offset"
        offset.write_text("+0\n")
        offsets.append(offset)
        fleet.variables = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    with scene(host, people=1, prepare=prepare) as one:
        (offset,) = offsets
        held = one.programs.imap(one.people[0])
        jumps = 0
        for _ in range(times):
            for short in (False, True):
                for to_s in (HOUR_S, 0, -HOUR_S, 0):
                    offset.write_text(f"{to_s:+d}\n")
                    jumps += 1
                    host.identity.issue_for(1 if short else HOUR_S)
                    one.expect(one.all_work(), f"no login with the clock at {to_s:+d} s")
        host.identity.issue_for(HOUR_S)
        one.expect(held.noop()[0] == "OK", "a session ended with a jump")
        held.logout()
        return one.judge("clock jumps by an hour, forth and back", jumps)


def _library() -> str:
    for pattern in LIBRARIES:
        for found in Path("/").glob(pattern[1:]):
            return str(found)
    raise AssertionError("libfaketime is not installed: apt-get install faketime")
