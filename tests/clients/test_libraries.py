"""The mail libraries of other languages, as in-house programs use them: small scripts, in `scripts/` and `node/`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.berth import HERE, Berth, driven, installed, same, sent_whole
from tests.end_to_end.programs import Security

PLAIN_AND_TLS = (Security.PLAIN, Security.TLS)
SCRIPTS = HERE / "scripts"
BUILD_DEADLINE_S = 110.0  # Go's own libraries are compiled the first time
JAVA_MAIL = "/usr/share/java/jakarta-mail.jar:/usr/share/java/jakarta-activation.jar"


def reads(berth: Berth, *interpreter: str) -> None:
    stored = berth.deliver()
    same(berth.script(interpreter).output, stored)


def sends(berth: Berth, *interpreter: str) -> None:
    letter = berth.letter()
    berth.script(interpreter, given=letter)
    sent_whole(berth.arrived(), letter)


def python(*words: str) -> tuple[str, ...]:
    return (sys.executable, str(SCRIPTS / "mail.py"), *words)


@driven("Python imaplib", "imap", "reads every byte", "LOGIN, password quoted", package="python:imaplib")
def test_imaplib(berth: Berth) -> None:
    reads(berth, *python("read", "imap"))


@driven("Python poplib", "pop3", "reads every byte", "USER and PASS", package="python:poplib")
def test_poplib(berth: Berth) -> None:
    reads(berth, *python("read", "pop3"))


@driven("Python smtplib", "smtp", "sends every byte", "AUTH PLAIN, initial response", package="python:smtplib")
def test_smtplib(berth: Berth) -> None:
    sends(berth, *python("send", "smtp"))


@driven("Perl Mail::IMAPClient", "imap", "reads every byte", "LOGIN, bare", package="libmail-imapclient-perl")
def test_perl_mail_imapclient(berth: Berth) -> None:
    reads(berth, "perl", str(SCRIPTS / "mail_imapclient.pl"))


@driven(
    "Perl Net::IMAP::Simple",
    "imap",
    "reads every byte",
    "LOGIN, password quoted",
    package="libnet-imap-simple-perl",
    securities=PLAIN_AND_TLS,
)
def test_perl_net_imap_simple(berth: Berth) -> None:
    """For STARTTLS it asks OpenSSL for a version that is no more ("SSLv3 TLSv1"), and dies of it."""
    reads(berth, "perl", str(SCRIPTS / "net_imap_simple.pl"))


@driven("Perl Net::POP3", "pop3", "reads every byte", "USER and PASS", package="perl")
def test_perl_net_pop3(berth: Berth) -> None:
    reads(berth, "perl", str(SCRIPTS / "libnet.pl"), "read")


@driven("Perl Net::SMTP", "smtp", "sends every byte", "AUTH PLAIN, initial response", package="perl")
def test_perl_net_smtp(berth: Berth) -> None:
    sends(berth, "perl", str(SCRIPTS / "libnet.pl"), "send")


@driven("Ruby Net::IMAP", "imap", "reads every byte", "AUTHENTICATE PLAIN", package="ruby")
def test_ruby_imap_authenticate(berth: Berth) -> None:
    reads(berth, "ruby", str(SCRIPTS / "mail.rb"), "imap")


@driven("Ruby Net::IMAP#login", "imap", "reads every byte", "LOGIN, bare", package="ruby")
def test_ruby_imap_login(berth: Berth) -> None:
    reads(berth, "ruby", str(SCRIPTS / "mail.rb"), "imap-login")


@driven(
    "Ruby Net::POP3",
    "pop3",
    "reads every byte",
    "USER and PASS",
    package="ruby",
    securities=PLAIN_AND_TLS,
)
def test_ruby_pop3(berth: Berth) -> None:
    """It knows no STLS."""
    reads(berth, "ruby", str(SCRIPTS / "mail.rb"), "pop3")


@driven("Ruby Net::SMTP", "smtp", "sends every byte", "AUTH LOGIN", package="ruby")
def test_ruby_smtp(berth: Berth) -> None:
    sends(berth, "ruby", str(SCRIPTS / "mail.rb"), "smtp")


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command that runs our Java, compiled once."""
    folder = tmp_path_factory.mktemp("java")
    compiler = [installed("javac"), "-cp", JAVA_MAIL, "-d", str(folder), str(SCRIPTS / "Mail.java")]
    subprocess.run(compiler, check=True, timeout=BUILD_DEADLINE_S)
    return ("java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", f"{JAVA_MAIL}:{folder}", "Mail")


@driven("Jakarta Mail", "imap", "reads every byte", "AUTHENTICATE PLAIN", package="libjakarta-mail-java")
def test_jakarta_imap(berth: Berth, java: tuple[str, ...]) -> None:
    reads(berth, *java, "imap")


@driven("Jakarta Mail", "pop3", "reads every byte", "USER and PASS", package="libjakarta-mail-java")
def test_jakarta_pop3(berth: Berth, java: tuple[str, ...]) -> None:
    reads(berth, *java, "pop3")


@driven("Jakarta Mail", "smtp", "sends every byte", "AUTH LOGIN", package="libjakarta-mail-java")
def test_jakarta_smtp(berth: Berth, java: tuple[str, ...]) -> None:
    sends(berth, *java, "smtp")


@pytest.fixture(scope="module")
def node_modules() -> None:
    """Installed once, beside their `package.json`; git does not see them."""
    if not (HERE / "node" / "node_modules" / ".package-lock.json").exists():
        install = [installed("npm"), "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(install, cwd=HERE / "node", check=True, timeout=BUILD_DEADLINE_S)


@driven("Node imapflow", "imap", "reads every byte", "AUTHENTICATE PLAIN", package="npm:imapflow")
def test_imapflow(berth: Berth, node_modules: None) -> None:
    reads(berth, "node", str(HERE / "node" / "read.js"))


@driven("Node nodemailer", "smtp", "sends every byte", "AUTH PLAIN, initial response", package="npm:nodemailer")
def test_nodemailer(berth: Berth, node_modules: None) -> None:
    sends(berth, "node", str(HERE / "node" / "send.js"))


@driven("PHP imap_open", "imap", "reads every byte", "AUTHENTICATE PLAIN", package="php-imap", securities=PLAIN_AND_TLS)
def test_php_imap(berth: Berth) -> None:
    _php_imap(berth, "imap")


@driven("PHP imap_open", "pop3", "reads every byte", "AUTH PLAIN", package="php-imap", securities=PLAIN_AND_TLS)
def test_php_pop3(berth: Berth) -> None:
    _php_imap(berth, "pop3")


def _php_imap(berth: Berth, protocol: str) -> None:
    """With STARTTLS c-client speaks TLS 1.0 alone, which a `legacy_tls` listener would take."""
    stored = berth.deliver()
    trust = {"SSL_CERT_FILE": str(berth.ca_file)}  # c-client asks OpenSSL's default
    same(berth.script(("php", str(SCRIPTS / "imap.php"), protocol), environment=trust).output, stored)


@driven("PHP Net_SMTP", "smtp", "sends every byte", "AUTH LOGIN", package="php-net-smtp")
def test_php_net_smtp(berth: Berth) -> None:
    sends(berth, "php", str(SCRIPTS / "net_smtp.php"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of our two Go programs; what Go compiles is kept in the temporary folder for the next run."""
    folder = tmp_path_factory.mktemp("go")
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOFLAGS": "-p=2",
        "GOCACHE": "/tmp/mailferry-go-cache",
        "HOME": str(folder),
    }
    for name in ("read", "send"):
        command = [installed("go"), "build", "-o", str(folder / name), str(SCRIPTS / f"{name}.go")]
        subprocess.run(command, check=True, timeout=BUILD_DEADLINE_S, env=environment)
    return folder


@driven("Go go-imap", "imap", "reads every byte", "LOGIN, quoted", package="golang-github-emersion-go-imap-dev")
def test_go_imap(berth: Berth, built: Path) -> None:
    reads(berth, str(built / "read"))


@driven("Go net/smtp", "smtp", "sends every byte", "AUTH PLAIN, initial response", package="golang-go")
def test_go_smtp(berth: Berth, built: Path) -> None:
    sends(berth, str(built / "send"))
