"""Programs that send by SMTP without a terminal: the ones that scripts and machines call."""

from __future__ import annotations

import re

from tests.clients.berth import Berth, driven, same_body, same_lines, sent_whole
from tests.end_to_end.programs import Security

PLAIN_AND_STARTTLS = (Security.PLAIN, Security.STARTTLS)


@driven("curl", "smtp", "sends every byte", "AUTH PLAIN")
def test_curl_smtp(berth: Berth) -> None:
    letter = berth.letter()
    config = berth.write("curlrc", f'user = "{berth.login}:{berth.password}"\n')
    berth.run(
        *("curl", "-sS", "--config", str(config), "--cacert", str(berth.ca_file), "--mail-from", berth.login),
        *("--mail-rcpt", berth.login, "--upload-file", "-"),
        *(("--ssl-reqd",) if berth.security is Security.STARTTLS else ()),
        f"smtp{'s' if berth.security is Security.TLS else ''}://localhost:{berth.port}/client.example",
        given=letter,
    )
    sent_whole(berth.arrived(), letter)


@driven("msmtp", "smtp", "sends every byte", "AUTH PLAIN, initial response")
def test_msmtp(berth: Berth) -> None:
    letter = berth.letter()
    config = berth.write(
        ".msmtprc",
        f"""\
account default
host localhost
port {berth.port}
from {berth.login}
user {berth.login}
password {berth.password}
auth {berth.choose("plain", "on", "on")}
tls {berth.choose("off", "on", "on")}
tls_starttls {berth.choose("off", "on", "off")}
{"" if berth.security is Security.PLAIN else f"tls_trust_file {berth.ca_file}"}
""",
    )
    berth.run("msmtp", f"--file={config}", berth.login, given=letter.replace(b"\r\n", b"\n"))
    sent_whole(berth.arrived(), letter)


@driven("swaks", "smtp", "sends every byte", "AUTH LOGIN")
def test_swaks(berth: Berth) -> None:
    letter = berth.letter()
    verified = [f"--tls-verify\n--tls-ca-path {berth.ca_file}"]
    options = [
        "--server localhost",
        f"--port {berth.port}",
        "--auth LOGIN",
        f"--auth-user {berth.login}",
        f"--auth-password {berth.password}",
        f"--from {berth.login}",
        f"--to {berth.login}",
        *berth.choose([], ["--tls", *verified], ["--tls-on-connect", *verified]),
    ]
    config = berth.write(".swaksrc", "\n".join(options))
    berth.run("swaks", "--config", str(config), "--data", "-", given=letter.replace(b"\r\n", b"\n"))
    sent_whole(berth.arrived().rstrip(), letter)


@driven("sendemail", "smtp", "sends", "AUTH LOGIN", securities=PLAIN_AND_STARTTLS)
def test_sendemail(berth: Berth) -> None:
    """It does not speak TLS at once, and does not double a dot at a line's start (RFC 5321 §4.5.2)."""
    letter = re.sub(rb"^\.+", b"", berth.letter(), flags=re.MULTILINE)
    file = berth.home / "letter"
    file.write_bytes(letter.partition(b"\r\n\r\n")[2])
    berth.run(
        *("sendemail", "-f", berth.login, "-t", berth.login, "-s", f"localhost:{berth.port}", "-u", "by ferry"),
        *("-xu", berth.login, "-xp", berth.password, "-o", f"message-file={file}", "-o", "message-charset=utf-8"),
        *("-o", f"tls={berth.choose('no', 'yes', '')}"),
        environment={"SSL_CERT_FILE": str(berth.ca_file)},
    )
    same_lines(berth.arrived(), letter)


@driven("esmtp", "smtp", "sends every byte", "AUTH PLAIN, initial response", securities=PLAIN_AND_STARTTLS)
def test_esmtp(berth: Berth) -> None:
    """It does not speak TLS at once."""
    letter = berth.letter()
    config = berth.write(
        ".esmtprc",
        f"""\
hostname=localhost:{berth.port}
username="{berth.login}"
password="{berth.password}"
starttls={berth.choose("disabled", "required", "")}
""",
    )
    berth.write(".config/libesmtp/ca.pem", berth.ca_file.read_text())
    berth.run("esmtp", "-C", str(config), "-f", berth.login, berth.login, given=letter.replace(b"\r\n", b"\n"))
    sent_whole(berth.arrived(), letter)


@driven("git send-email", "smtp", "sends", "AUTH PLAIN, initial response", package="git-email")
def test_git_send_email(berth: Berth) -> None:
    letter = berth.letter()
    file = berth.home / "0001.patch"
    file.write_bytes(letter.replace(b"\r\n", b"\n"))
    berth.write(
        ".gitconfig",
        f"""\
[user]
  name = Ferry
  email = {berth.login}
[sendemail]
  smtpServer = localhost
  smtpServerPort = {berth.port}
  smtpUser = {berth.login}
  smtpPass = {berth.password}
  smtpSSLCertPath = {berth.ca_file}
  {berth.choose("smtpEncryption = none", "smtpEncryption = tls", "smtpEncryption = ssl")}
  from = {berth.login}
  confirm = never
""",
    )
    berth.run("git", "send-email", f"--to={berth.login}", "--suppress-cc=all", str(file))
    same_body(berth.arrived(), letter)


@driven("mail", "smtp", "sends", "AUTH LOGIN", package="mailutils", securities=PLAIN_AND_STARTTLS)
def test_mailutils(berth: Berth) -> None:
    """GNU mailutils: with TLS at once it wants a port of its own choice."""
    letter = berth.letter()
    login = berth.login.replace("@", "%40")
    mailer = f"smtp://{login}:{berth.password}@localhost:{berth.port}{berth.choose(';notls', '', '')}"
    berth.write(".mailrc", f'set sendmail="{mailer}"\n')
    berth.run(
        *("mail.mailutils", "--subject", "by ferry", "--return-address", berth.login),
        berth.login,
        given=letter.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n"),
    )
    same_lines(berth.arrived(), letter)


@driven("s-nail", "smtp", "sends", "AUTH PLAIN")
def test_s_nail_smtp(berth: Berth) -> None:
    letter = berth.letter()
    login = berth.login.replace("@", "%40")
    config = berth.write(
        ".mailrc",
        f"""\
set v15-compat from={berth.login} sendcharsets=utf-8 mime-encoding=8bit smtp-hostname=client.example
set mta=smtp{berth.choose("", "", "s")}://{login}:{berth.password}@localhost:{berth.port} smtp-auth=plain
{berth.choose("", "set smtp-use-starttls", "")}
set tls-ca-file={berth.ca_file} tls-ca-no-defaults tls-verify=strict
""",
    )
    berth.run(
        *("s-nail", "-n", "-s", "by ferry", berth.login),
        given=letter.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n"),
        environment={"MAILRC": str(config)},
    )
    same_lines(berth.arrived(), letter)
