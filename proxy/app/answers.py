"""What comes of a request: JSON values, or an error in words with the exit code that a command ends with."""

from __future__ import annotations

from typing import Any

from proxy.login import LoginRefused, Refusal

# PRODUCT section 2; the last one as shells say it
EXIT_FAILED, EXIT_USAGE, EXIT_SIGN_IN_NEEDED, EXIT_NO_DAEMON, EXIT_HELD, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130

Answer = dict[str, Any]


class DeskError(Exception):
    """The request cannot be met; the text says why and what to do. `exit_code` is the command's (PRODUCT section 2)."""

    def __init__(self, text: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.exit_code = exit_code


def no_account(login: str) -> str:
    """In a person's words."""
    return f"There is no account {login!r}. `mailferry account list` shows those there are."


def refused_login(refused: LoginRefused) -> DeskError:
    """A refusal that a command meets, in full."""
    needed = refused.refusal is Refusal.SIGN_IN_NEEDED
    return DeskError(refused.whole, EXIT_SIGN_IN_NEEDED if needed else EXIT_FAILED)
