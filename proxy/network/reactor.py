"""What this floor needs of Twisted's reactor, as one type. Tests hand in their own; no module imports the reactor."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorFDSet, IReactorPluggableNameResolver, IReactorTime


class Reactor(IReactorTime, IReactorFDSet, IReactorPluggableNameResolver):
    """A clock that also watches descriptors and resolves names."""
