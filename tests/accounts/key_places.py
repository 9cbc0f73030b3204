"""A key place in memory. Not a test."""

from __future__ import annotations

from proxy.accounts.keys import KeyUnusable

KEY = bytes(range(32))
NEXT_KEY = bytes(range(1, 33))


class HeldKey:
    """Holds a key, and gives `following` as its successor. `fixed`: nobody may put that in its place."""

    def __init__(self, key: bytes = KEY, *, following: bytes | None = None, fixed: bool = False) -> None:
        self.key = key
        self.following = following
        self.fixed = fixed
        self.made: list[bool] = []
        """Whether the store asked for a new one, each time it read."""

    def read(self, *, make: bool) -> bytes:
        self.made.append(make)
        return self.key

    def read_next(self) -> bytes | None:
        return self.following

    def draft(self) -> bytes:
        self.following = self.following or NEXT_KEY
        return self.following

    def promote(self) -> None:
        if self.fixed:
            raise KeyUnusable("Put it there yourself.")
        if self.following is not None:
            self.key, self.following = self.following, None
