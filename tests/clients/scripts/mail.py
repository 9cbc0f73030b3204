"""Python's own imaplib, poplib and smtplib: `read imap` or `read pop3` prints a message, `send smtp` sends one."""

import imaplib
import os
import poplib
import smtplib
import ssl
import sys

PORT, LOGIN, PASSWORD = int(os.environ["MF_PORT"]), os.environ["MF_LOGIN"], os.environ["MF_PASSWORD"]
SECURITY = os.environ["MF_SECURITY"]
context = ssl.create_default_context(cafile=os.environ["MF_CA_FILE"])


def read_imap() -> bytes:
    tls = SECURITY == "tls"
    client = imaplib.IMAP4_SSL("localhost", PORT, ssl_context=context) if tls else imaplib.IMAP4("localhost", PORT)
    if SECURITY == "starttls":
        client.starttls(context)
    client.login(LOGIN, PASSWORD)
    client.select()
    part = client.fetch("1", "(BODY.PEEK[])")[1][0]
    assert isinstance(part, tuple)
    client.logout()
    return bytes(part[1])


def read_pop3() -> bytes:
    tls = SECURITY == "tls"
    client = poplib.POP3_SSL("localhost", PORT, context=context) if tls else poplib.POP3("localhost", PORT)
    if SECURITY == "starttls":
        client.stls(context)
    client.user(LOGIN)
    client.pass_(PASSWORD)
    lines = client.retr(1)[1]
    client.quit()
    return b"\r\n".join(lines) + b"\r\n"


def send_smtp() -> bytes:
    tls = SECURITY == "tls"
    client = smtplib.SMTP_SSL("localhost", PORT, context=context) if tls else smtplib.SMTP("localhost", PORT)
    if SECURITY == "starttls":
        client.starttls(context=context)
    client.login(LOGIN, PASSWORD)
    client.sendmail(LOGIN, [LOGIN], sys.stdin.buffer.read())
    client.quit()
    return b""


WAYS = {"read imap": read_imap, "read pop3": read_pop3, "send smtp": send_smtp}
sys.stdout.buffer.write(WAYS[" ".join(sys.argv[1:])]())
