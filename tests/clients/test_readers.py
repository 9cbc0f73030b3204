"""Programs that fetch mail by IMAP or POP3 without a terminal, or keep folders the same on both sides."""

from __future__ import annotations

from tests.clients.berth import Berth, driven, only_file, same, same_body
from tests.end_to_end.programs import Security

PLAIN_AND_TLS = (Security.PLAIN, Security.TLS)


@driven("curl", "imap", "reads every byte", "AUTHENTICATE PLAIN, initial response")
def test_curl_imap(berth: Berth) -> None:
    stored = berth.deliver()
    same(_curl(berth, "imap", "INBOX;MAILINDEX=1"), stored)


@driven("curl", "pop3", "reads every byte", "AUTH PLAIN")
def test_curl_pop3(berth: Berth) -> None:
    stored = berth.deliver()
    same(_curl(berth, "pop3", "1"), stored)


def _curl(berth: Berth, scheme: str, path: str) -> bytes:
    config = berth.write("curlrc", f'user = "{berth.login}:{berth.password}"\n')
    return berth.run(
        *("curl", "-sS", "--config", str(config), "--cacert", str(berth.ca_file)),
        *(("--ssl-reqd",) if berth.security is Security.STARTTLS else ()),
        f"{scheme}{'s' if berth.security is Security.TLS else ''}://localhost:{berth.port}/{path}",
    ).output


@driven("isync", "imap", "syncs both ways", "AUTHENTICATE PLAIN, initial response")
def test_isync(berth: Berth) -> None:
    stored = berth.deliver()
    inbox = berth.maildir()
    config = berth.write(
        ".mbsyncrc",
        f"""\
IMAPAccount ferry
Host localhost
Port {berth.port}
User {berth.login}
Pass {berth.password}
AuthMechs *
SSLType {berth.choose("None", "STARTTLS", "IMAPS")}
CertificateFile {berth.ca_file}

IMAPStore far
Account ferry

MaildirStore near
Inbox {inbox}

Channel both
Far :far:
Near :near:
Sync All
SyncState *
""",
    )
    sync = ("mbsync", "-c", str(config), "both")
    berth.run(*sync)
    same_body(only_file(inbox), stored)  # it marks what it has synced with a line X-TUID
    letter = berth.letter()
    (inbox / "cur" / "1.written.here:2,S").write_bytes(letter.replace(b"\r\n", b"\n"))
    berth.run(*sync)
    same_body(berth.arrived(2), letter)


@driven("offlineimap3", "imap", "syncs both ways", "AUTHENTICATE PLAIN", securities=PLAIN_AND_TLS)
def test_offlineimap(berth: Berth) -> None:
    """By STARTTLS its imaplib2 hangs now and then: its reader may end before the answer that it awaits."""
    stored = berth.deliver()
    config = berth.write(
        ".offlineimaprc",
        f"""\
[general]
accounts = ferry
ui = basic
[Account ferry]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {berth.home}/kept
[Repository far]
type = IMAP
remotehost = localhost
remoteport = {berth.port}
remoteuser = {berth.login}
remotepass = {berth.password}
ssl = {berth.choose("no", "no", "yes")}
starttls = {berth.choose("no", "yes", "no")}
sslcacertfile = {berth.ca_file}
""",
    )
    sync = ("offlineimap", "-o", "-1", "-c", str(config))
    berth.run(*sync)
    inbox = berth.home / "kept" / "INBOX"
    same(only_file(inbox), stored)
    letter = berth.letter()
    (inbox / "cur" / "1.written.here:2,S").write_bytes(letter.replace(b"\r\n", b"\n"))
    berth.run(*sync)
    same_body(berth.arrived(2), letter)  # it marks what it uploads with a line X-OfflineIMAP


@driven("fetchmail", "imap", "fetches and removes", "LOGIN, quoted")
def test_fetchmail_imap(berth: Berth) -> None:
    _fetchmail(berth, "imap")


@driven("fetchmail", "pop3", "fetches and removes", "USER and PASS")
def test_fetchmail_pop3(berth: Berth) -> None:
    _fetchmail(berth, "pop3")


def _fetchmail(berth: Berth, protocol: str) -> None:
    stored = berth.deliver()
    verified = f"sslcertck sslcertfile {berth.ca_file}"
    ssl = berth.choose("sslproto ''", f"sslproto 'TLS1.2+' {verified}", f"ssl {verified}")
    config = berth.write(
        ".fetchmailrc",
        f"""\
poll localhost proto {protocol} service {berth.port}
  user "{berth.login}" password "{berth.password}" {ssl}
  no keep fetchall mda "cat > {berth.home}/kept"
""",
    )
    berth.run("fetchmail", "-f", str(config), "--pidfile", str(berth.home / "pid"), "--idfile", str(berth.home / "ids"))
    same_body((berth.home / "kept").read_bytes(), stored)
    assert berth.ferry.host.dovecot.messages(berth.login) == []


@driven("getmail6", "imap", "fetches and removes", "LOGIN, password quoted", securities=PLAIN_AND_TLS)
def test_getmail_imap(berth: Berth) -> None:
    """Debian 12's knows no STARTTLS."""
    _getmail(berth, "IMAP")


@driven("getmail6", "pop3", "fetches and removes", "USER and PASS", securities=PLAIN_AND_TLS)
def test_getmail_pop3(berth: Berth) -> None:
    _getmail(berth, "POP3")


def _getmail(berth: Berth, protocol: str) -> None:
    """It waits a minute for a child that ends before it begins to wait (`ForkingBase`), so the child takes its time."""
    stored = berth.deliver()
    ssl = berth.choose("", "", "SSL")
    berth.write(
        "getmail/getmailrc",
        f"""\
[retriever]
type = Simple{protocol}{ssl}Retriever
server = localhost
port = {berth.port}
username = {berth.login}
password = {berth.password}
{"" if berth.security is Security.PLAIN else f"ca_certs = {berth.ca_file}"}
[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat >{berth.home}/kept; sleep 1")
allow_root_commands = true
[options]
delete = true
delivered_to = false
received = false
""",
    )
    berth.run("getmail", f"--getmaildir={berth.home}/getmail")
    same_body((berth.home / "kept").read_bytes(), stored)
    assert berth.ferry.host.dovecot.messages(berth.login) == []


@driven("mpop", "pop3", "fetches and removes", "AUTH PLAIN")
def test_mpop(berth: Berth) -> None:
    stored = berth.deliver()
    config = berth.write(
        ".mpoprc",
        f"""\
account default
host localhost
port {berth.port}
user {berth.login}
password {berth.password}
tls {berth.choose("off", "on", "on")}
tls_starttls {berth.choose("off", "on", "off")}
{"auth plain" if berth.security is Security.PLAIN else f"tls_trust_file {berth.ca_file}"}
keep off
received_header off
delivery maildir {berth.maildir()}
uidls_file {berth.home}/uidls
""",
    )
    berth.run("mpop", f"--file={config}")
    same(only_file(berth.home / "kept"), stored)
    assert berth.ferry.host.dovecot.messages(berth.login) == []


@driven("imapfilter", "imap", "reads every byte", "LOGIN, quoted")
def test_imapfilter(berth: Berth) -> None:
    stored = berth.deliver()
    ssl = berth.choose("", "", "ssl = 'auto',")
    config = berth.write(
        "imapfilter.lua",
        f"""\
options.starttls = {berth.choose("false", "true", "false")}
account = IMAP {{
  server = 'localhost', port = {berth.port}, {ssl} username = '{berth.login}', password = '{berth.password}',
}}
for _, letter in ipairs(account.INBOX:select_all()) do
  local mailbox, uid = table.unpack(letter)
  local file = io.open('kept', 'w')
  file:write(mailbox[uid]:fetch_message())
  file:close()
end
""",
    )
    berth.run("imapfilter", "-c", str(config), "-t", str(berth.ca_file))
    same((berth.home / "kept").read_bytes(), stored)


@driven("movemail", "imap", "fetches and removes", "LOGIN, bare", package="mailutils")
def test_movemail_imap(berth: Berth) -> None:
    _movemail(berth, "imap")


@driven("movemail", "pop3", "fetches and removes", "USER and PASS", package="mailutils")
def test_movemail_pop3(berth: Berth) -> None:
    _movemail(berth, "pop")


def _movemail(berth: Berth, scheme: str) -> None:
    stored = berth.deliver()
    login = berth.login.replace("@", "%40")
    scheme, parameters = scheme + berth.choose("", "", "s"), berth.choose(";notls", "", "")
    url = f"{scheme}://{login}:{berth.password}@localhost:{berth.port}{parameters}"
    berth.run("movemail", url, f"maildir://{berth.home}/kept")
    same(only_file(berth.home / "kept"), stored)
    assert berth.ferry.host.dovecot.messages(berth.login) == []
