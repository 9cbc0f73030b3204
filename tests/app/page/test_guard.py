"""The guard by itself, with a clock of the test's own: links, sessions, rates. On the wire: test_attacks.py."""

from __future__ import annotations

import pytest

from proxy.app.page import guard as module
from proxy.app.page.guard import Guard, Session, Turned
from proxy.app.page.wire import Received

HOST = "localhost:8143"


class Watch:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def guard(watch: Watch) -> Guard:
    return Guard("127.0.0.1", 8143, watch)


def request(**headers: str | list[str]) -> Received:
    plain = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in headers.items()}
    return Received("POST", b"/", plain)


def entered(guard: Guard) -> tuple[Session, str]:
    secret = guard.open(guard.invite())
    session = guard.session(request(cookie=f"{guard.cookie}={secret}"))
    assert session is not None
    return session, secret


@pytest.mark.parametrize("host", ["localhost:8143", "LOCALHOST:8143", "127.0.0.1:8143", "[::1]:8143"])
def test_our_own_names(guard: Guard, host: str) -> None:
    assert guard.check_host(request(host=host)) == host.lower()


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "localhost:80", "evil.example:8143", "localhost:8143.evil.example", "127.0.0.2:8143", "[::1]"],
)
def test_other_names(guard: Guard, host: str) -> None:
    with pytest.raises(Turned):
        guard.check_host(request(host=host))


def test_two_hosts_are_none(guard: Guard) -> None:
    with pytest.raises(Turned):
        guard.check_host(request(host=["localhost:8143", "localhost:8143"]))


def test_the_configured_address_is_a_name_too(watch: Watch) -> None:
    assert Guard("127.0.0.9", 80, watch).check_host(request(host="127.0.0.9")) == "127.0.0.9"


def test_a_link_opens_once(guard: Guard) -> None:
    token = guard.invite()
    guard.open(token)
    with pytest.raises(Turned, match="used up"):
        guard.open(token)


def test_a_link_lives_ten_minutes(guard: Guard, watch: Watch) -> None:
    token, other = guard.invite(), guard.invite()
    watch.now += module.LINK_LIFE_S - 1
    guard.open(token)
    watch.now += 1
    with pytest.raises(Turned):
        guard.open(other)


def test_links_are_few(guard: Guard) -> None:
    first = guard.invite()
    for _ in range(module.MAX_LINKS):
        last = guard.invite()
    guard.open(last)
    with pytest.raises(Turned):
        guard.open(first)


def test_the_cookie_is_strict(guard: Guard) -> None:
    assert guard.set_cookie("x") == "mailferry-8143=x; Path=/; HttpOnly; SameSite=Strict"


def test_a_session_ends_when_idle_and_when_old(guard: Guard, watch: Watch) -> None:
    _, secret = entered(guard)
    cookie = request(cookie=f"{guard.cookie}={secret}")
    watch.now += module.SESSION_IDLE_S - 1
    assert guard.session(cookie) is not None
    watch.now += module.SESSION_IDLE_S
    assert guard.session(cookie) is None
    _, secret = entered(guard)
    cookie = request(cookie=f"{guard.cookie}={secret}")
    for _ in range(4):
        watch.now += module.SESSION_LIFE_S / 4
        held = guard.session(cookie)
    assert held is None


def test_sessions_are_few(guard: Guard, watch: Watch) -> None:
    secrets = []
    for _ in range(module.MAX_SESSIONS + 1):
        watch.now += 1
        secrets.append(entered(guard)[1])
    known = [guard.session(request(cookie=f"{guard.cookie}={secret}")) is not None for secret in secrets]
    assert known == [False] + [True] * module.MAX_SESSIONS


def test_another_program_may_set_a_cookie_of_our_name(guard: Guard) -> None:
    session, secret = entered(guard)
    assert guard.session(request(cookie=f"{guard.cookie}=theirs; x=y; {guard.cookie}={secret}")) is session
    assert guard.session(request(cookie=f"{guard.cookie}=theirs")) is None


def test_a_change_needs_the_token_of_this_session(guard: Guard) -> None:
    session, _ = entered(guard)
    other, _ = entered(guard)
    guard.check_change(request(origin=f"http://{HOST}"), session, session.csrf, HOST)
    guard.check_change(request(), session, session.csrf, HOST)
    for wrong in (None, "", "x", session.csrf[:-1], other.csrf, "\N{SNOWMAN}"):
        with pytest.raises(Turned):
            guard.check_change(request(origin=f"http://{HOST}"), session, wrong, HOST)


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "https://localhost:8143", "http://localhost:1", ""])
def test_a_change_from_another_origin(guard: Guard, origin: str) -> None:
    session, _ = entered(guard)
    with pytest.raises(Turned):
        guard.check_change(request(origin=origin), session, session.csrf, HOST)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", ""])
def test_a_change_that_another_site_sent(guard: Guard, site: str) -> None:
    session, _ = entered(guard)
    with pytest.raises(Turned):
        guard.check_change(request(origin=f"http://{HOST}", sec_fetch_site=site), session, session.csrf, HOST)


def test_a_flood_of_strangers_does_not_shut_out_who_is_in(guard: Guard, watch: Watch) -> None:
    _, secret = entered(guard)
    for _ in range(module.BURST_REQUESTS - 1):
        guard.session(request())
    guard.session(request())
    with pytest.raises(Turned) as turned:
        guard.session(request())
    assert turned.value.status == 429
    assert guard.session(request(cookie=f"{guard.cookie}={secret}")) is not None
    watch.now += 1
    assert guard.session(request()) is None


def test_who_is_in_is_bounded_too(guard: Guard) -> None:
    _, secret = entered(guard)
    cookie = request(cookie=f"{guard.cookie}={secret}")
    for _ in range(module.BURST_REQUESTS - 1):
        guard.session(cookie)
    with pytest.raises(Turned):
        guard.session(cookie)


def test_notes_are_few_and_short_lived(guard: Guard, watch: Watch) -> None:
    session, _ = entered(guard)
    session.keep("a", 1)
    assert (session.take("a"), session.take("a")) == (1, None)
    session.keep("b", 2)
    watch.now += module.NOTE_LIFE_S
    assert session.take("b") is None
    for number in range(module.MAX_NOTES + 1):
        session.keep(str(number), number)
    assert session.take("0") is None
    assert len(session.notes) == module.MAX_NOTES


def test_no_secret_is_printed(guard: Guard) -> None:
    session, secret = entered(guard)
    session.keep("password", "hidden")
    shown = f"{session!r} {vars(guard)!r}"
    assert session.csrf not in shown
    assert secret not in shown
    assert "hidden" not in shown
