"""Programs that a person uses in a terminal, driven by keys."""

from __future__ import annotations

from tests.clients.berth import Berth, driven, only_file, same_body, same_lines


def _muttrc(berth: Berth, protocol: str) -> str:
    """For mutt and neomutt, which read the same."""
    scheme = protocol + berth.choose("", "", "s")
    return f"""\
set ssl_starttls={berth.choose("no", "yes", "no")} ssl_force_tls={berth.choose("no", "yes", "yes")}
set certificate_file={berth.ca_file} ssl_verify_host=yes
set imap_user="{berth.login}" imap_pass="{berth.password}" pop_user="{berth.login}" pop_pass="{berth.password}"
set smtp_url="smtp{berth.choose("", "", "s")}://{berth.login}@localhost:{berth.port}/" smtp_pass="{berth.password}"
set from="{berth.login}" use_from=yes use_envelope_from=yes envelope_from_address="{berth.login}" realname=""
set spoolfile="{scheme}://localhost:{berth.port}/{"INBOX" if protocol == "imap" else ""}" folder="{berth.home}"
set mbox_type=Maildir copy=no record="" wait_key=no confirmappend=no confirmcreate=no sleep_time=0 delete=no
set header_cache="" message_cachedir="" postponed="{berth.home}/postponed" send_charset=utf-8 allow_8bit=yes
set quit=yes move=no abort_unmodified=no
"""


def _mutt_reads(berth: Berth, program: str, protocol: str) -> None:
    stored = berth.deliver()
    kept = berth.home / "kept"
    config = berth.write(
        ".muttrc",
        _muttrc(berth, protocol) + f"push '<copy-message><kill-line>{kept}<enter><exit>'\n",
    )
    berth.type_into([program, "-n", "-F", str(config)])
    same_body(only_file(kept), stored)  # it adds lines of its own: Content-Length, Lines


def _mutt_sends(berth: Berth, program: str) -> None:
    letter = berth.letter()
    body = berth.home / "body"
    body.write_bytes(letter.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n"))
    config = berth.write(".muttrc", _muttrc(berth, "imap"))
    berth.run(program, "-n", "-F", str(config), "-s", "by ferry", berth.login, given=body.read_bytes())
    same_lines(berth.arrived(), letter)


@driven("mutt", "imap", "reads every byte", "AUTHENTICATE PLAIN, initial response")
def test_mutt_imap(berth: Berth) -> None:
    _mutt_reads(berth, "mutt", "imap")


@driven("mutt", "pop3", "reads every byte", "AUTH PLAIN")
def test_mutt_pop3(berth: Berth) -> None:
    _mutt_reads(berth, "mutt", "pop")


@driven("mutt", "smtp", "sends", "AUTH PLAIN, initial response")
def test_mutt_smtp(berth: Berth) -> None:
    _mutt_sends(berth, "mutt")


@driven("neomutt", "imap", "reads every byte", "AUTHENTICATE PLAIN, initial response")
def test_neomutt_imap(berth: Berth) -> None:
    _mutt_reads(berth, "neomutt", "imap")


@driven("neomutt", "pop3", "reads every byte", "AUTH PLAIN")
def test_neomutt_pop3(berth: Berth) -> None:
    _mutt_reads(berth, "neomutt", "pop")


@driven("neomutt", "smtp", "sends", "AUTH PLAIN, initial response")
def test_neomutt_smtp(berth: Berth) -> None:
    _mutt_sends(berth, "neomutt")


@driven("s-nail", "imap", "reads every byte", "LOGIN, quoted")
def test_s_nail_imap(berth: Berth) -> None:
    _s_nail_reads(berth, "imap", "/INBOX")


@driven("s-nail", "pop3", "reads every byte", "USER and PASS")
def test_s_nail_pop3(berth: Berth) -> None:
    _s_nail_reads(berth, "pop3", "")


def _s_nail_reads(berth: Berth, protocol: str, path: str) -> None:
    stored = berth.deliver()
    login = berth.login.replace("@", "%40")
    config = berth.write(
        ".mailrc",
        f"""\
set v15-compat folder={berth.home} {berth.choose("", f"{protocol}-use-starttls", "")}
set tls-ca-file={berth.ca_file} tls-ca-no-defaults tls-verify=strict
""",
    )
    url = f"{protocol}{berth.choose('', '', 's')}://{login}:{berth.password}@localhost:{berth.port}{path}"
    berth.run(
        *("s-nail", "-n", "-R", "-S", "quiet", "-f", url),
        given=f"copy 1 maildir://{berth.home}/kept\nexit\n".encode(),
        environment={"MAILRC": str(config)},
    )
    same_body(only_file(berth.home / "kept"), stored)


@driven("alpine", "imap", "reads", "AUTHENTICATE PLAIN, initial response")
def test_alpine_imap(berth: Berth) -> None:
    _alpine_reads(berth, "")


@driven("alpine", "pop3", "reads", "AUTH PLAIN, initial response")
def test_alpine_pop3(berth: Berth) -> None:
    _alpine_reads(berth, "/pop3")


def _alpine_reads(berth: Berth, protocol: str) -> None:
    stored = berth.deliver()
    security = berth.choose("/notls", "/tls", "/ssl")
    config = berth.write(
        ".pinerc",
        f"""\
user-domain=contoso.com
inbox-path={{localhost:{berth.port}{protocol}{security}/user={berth.login}}}INBOX
last-version-used=7.00
last-time-prune-questioned=126.11
feature-list=quit-without-confirm,disable-password-caching,disable-password-file-saving
""",
    )
    berth.type_into(
        ["alpine", "-p", str(config), "-i"],
        {"SSL_CERT_FILE": str(berth.ca_file)},
        [
            ("ENTER PASSWORD", f"{berth.password}\r"),
            ("by ferry", "e"),
            ("EXPORT: ", f"{berth.home}/kept\r"),
            ("exported to file", "q"),
        ],
    )
    same_lines((berth.home / "kept").read_bytes(), stored)
