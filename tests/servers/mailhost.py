"""All that stands behind the proxy in tests: the stand-in sign-in service, and real mail servers that trust it.

Called by the session fixtures of `tests/servers` and `tests/end_to_end`. Each test takes people of its own, so that
no test sees another's mail or tokens.
"""

from __future__ import annotations

import itertools
import secrets
import smtplib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proxy.demo.certificates import LocalCertificate, local_certificate
from proxy.demo.identity import IdentityProvider
from tests.servers.child import open_folder, wait_until
from tests.servers.dovecot import Dovecot
from tests.servers.postfix import Postfix

DOMAIN = "contoso.com"
DELIVERY_DEADLINE_S = 20.0  # Postfix hands a message on at once; 20 MB on two busy cores take longer


SECRET_FIELDS = ("access_token", "refresh_token", "id_token", "code", "code_verifier", "device_code", "client_secret")


class RememberingIdentity(IdentityProvider):
    """The sign-in service, which also keeps every secret that passed its doors: no log may hold one."""

    def __init__(self, folder: Path, *, access_token_lifetime_s: int) -> None:
        super().__init__(folder, access_token_lifetime_s=access_token_lifetime_s, device_interval_s=1)
        self.secrets: set[str] = set()

    def token(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        self._remember(form)
        answer = super().token(tenant, form)
        self._remember(answer)
        return answer

    def start_device(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        answer = super().start_device(tenant, form)
        self._remember(answer)
        return answer

    def _remember(self, fields: Mapping[str, object]) -> None:
        self.secrets.update(str(fields[name]) for name in SECRET_FIELDS if name in fields)


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with a mailbox; the password is for the sign-in service, and no mail server knows it."""

    upn: str
    password: str = field(repr=False)


class MailHost:
    """A context manager: everything is started and answering inside the `with`."""

    identity: RememberingIdentity
    dovecot: Dovecot
    postfix: Postfix
    certificate: LocalCertificate

    def __init__(self, *, access_token_lifetime_s: int = 3600) -> None:
        self._lifetime_s = access_token_lifetime_s
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def new_person(self) -> Person:
        """A person nobody else uses, with an empty mailbox."""
        person = Person(f"person{next(self._numbers)}@{DOMAIN}", secrets.token_urlsafe(18))
        self.identity.add_person(person.upn, person.password)
        self.dovecot.add_mailbox(person.upn)
        return person

    def deliver(self, person: Person, message: bytes) -> bytes:
        """Put a message into this person's inbox by LMTP; gives it as it lies there, with the trace header on top."""
        before = len(self.dovecot.messages(person.upn))
        with smtplib.LMTP(str(self.dovecot.lmtp_socket)) as client:
            client.sendmail(f"sender@{DOMAIN}", [person.upn], message)
        return self.delivered(person, before + 1)[-1]

    def delivered(self, person: Person, count: int = 1) -> list[bytes]:
        """The messages in this person's inbox, once there are so many.

        Raises:
            ServerFailed: they do not arrive.
        """
        wait_until(
            f"{count} message(s) for {person.upn}",
            lambda: len(self.dovecot.messages(person.upn)) >= count,
            DELIVERY_DEADLINE_S,
        )
        return self.dovecot.messages(person.upn)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.certificate = local_certificate(stack.enter_context(open_folder("mf-ca-")))
            self.identity = stack.enter_context(
                RememberingIdentity(self.certificate.file.parent, access_token_lifetime_s=self._lifetime_s)
            )
            self.dovecot = stack.enter_context(
                Dovecot(stack.enter_context(open_folder("mf-dc-")), self.certificate, self.identity.introspection_url)
            )
            self.postfix = stack.enter_context(
                Postfix(stack.enter_context(open_folder("mf-pf-")), self.certificate, self.dovecot, DOMAIN)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
