"""One message as IMAP's FETCH shows it (RFC 9051 §7.5.2): sections, envelope, body structure."""

from __future__ import annotations

import email
import re
from email.header import Header
from email.message import Message as Part
from email.utils import getaddresses

from proxy.demo.post_office import Message

MACROS = {
    "ALL": ["FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"],
    "FAST": ["FLAGS", "INTERNALDATE", "RFC822.SIZE"],
    "FULL": ["FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"],
}
_WHOLE = {"RFC822": "", "RFC822.HEADER": "HEADER", "RFC822.TEXT": "TEXT"}
_SECTION = re.compile(r"BODY(?:\.PEEK)?\[([^\]]*)\](?:<(\d+)(?:\.(\d+))?>)?", re.IGNORECASE)


class NoSuchItem(Exception):
    """FETCH was asked for something that does not exist."""


def marks_seen(item: str) -> bool:
    return item.upper() in ("RFC822", "RFC822.TEXT") or item.upper().startswith("BODY[")


def show(message: Message, item: str) -> bytes:
    """The name and value of this item. Raises: NoSuchItem."""
    name = item.upper()
    match name:
        case "UID":
            return b"UID %d" % message.uid
        case "FLAGS":
            return b"FLAGS (%s)" % " ".join(sorted(message.flags)).encode()
        case "RFC822.SIZE":
            return b"RFC822.SIZE %d" % len(message.data)
        case "INTERNALDATE":
            return message.received.strftime('INTERNALDATE "%d-%b-%Y %H:%M:%S %z"').encode()
        case "ENVELOPE":
            return b"ENVELOPE " + _envelope(email.message_from_bytes(message.data))
        case "BODY" | "BODYSTRUCTURE":
            return name.encode() + b" " + _structure(email.message_from_bytes(message.data))
        case "RFC822" | "RFC822.HEADER" | "RFC822.TEXT":
            return name.encode() + b" " + _literal(_section(message.data, _WHOLE[name]))
    asked = _SECTION.fullmatch(item)
    if asked is None:
        raise NoSuchItem(item)
    section, origin, count = asked.groups()
    data, label = _section(message.data, section), f"BODY[{section}]"
    if origin is not None:
        start = int(origin)
        data, label = data[start : start + int(count)] if count else data[start:], f"{label}<{start}>"
    return label.encode() + b" " + _literal(data)


def _section(data: bytes, section: str) -> bytes:
    """RFC 9051 §6.4.5: part numbers, then HEADER, HEADER.FIELDS, TEXT or MIME."""
    numbers, what = re.fullmatch(r"((?:\d+(?:\.|$))*)(.*)", section, re.DOTALL).groups()  # type: ignore[union-attr]
    part = email.message_from_bytes(data)
    for number in filter(None, numbers.split(".")):
        children = part.get_payload() if part.is_multipart() else [part]
        if not isinstance(children, list) or not 0 < int(number) <= len(children):
            return b""
        child = children[int(number) - 1]
        if not isinstance(child, Part):
            return b""
        if child is part:
            data = data.partition(b"\r\n\r\n")[2] if not what else data
        else:
            part = child
            data = _bytes(part) if what else _bytes(part).partition(b"\r\n\r\n")[2]
    head, _, text = data.partition(b"\r\n\r\n")
    fields = re.fullmatch(r"HEADER\.FIELDS(\.NOT)? \(([^)]*)\)", what, re.IGNORECASE)
    match what.upper():
        case "":
            return data
        case "HEADER" | "MIME":
            return head + b"\r\n\r\n"
        case "TEXT":
            return text
        case _ if fields:
            wanted = fields[2].upper().replace('"', "").encode().split()
            lines = re.split(rb"\r\n(?![ \t])", head)
            kept = [one for one in lines if (one.partition(b":")[0].strip().upper() in wanted) != bool(fields[1])]
            return b"".join(one + b"\r\n" for one in kept) + b"\r\n"
    raise NoSuchItem(section)


def _envelope(part: Part) -> bytes:
    def addresses(name: str) -> bytes:
        found = getaddresses([str(value) for value in part.get_all(name, [])])
        listed = [
            b"(%s NIL %s %s)" % (_string(who or None), _string(at.rpartition("@")[0]), _string(at.rpartition("@")[2]))
            for who, at in found
        ]
        return b"(%s)" % b"".join(listed) if listed else b"NIL"

    sender = addresses("From")
    people = [sender, *(addresses(name) for name in ("Sender", "Reply-To", "To", "Cc", "Bcc"))]
    people[1:3] = [sender if who == b"NIL" else who for who in people[1:3]]
    fields = [_field(part, "Date"), _field(part, "Subject"), *people]
    return b"(%s)" % b" ".join([*fields, _field(part, "In-Reply-To"), _field(part, "Message-ID")])


def _structure(part: Part) -> bytes:
    """RFC 9051 §7.5.2, without extension data."""
    children = part.get_payload()
    subtype = _string(part.get_content_subtype())
    if part.get_content_maintype() == "multipart" and isinstance(children, list):
        return b"(%s %s)" % (b"".join(_structure(child) for child in children if isinstance(child, Part)), subtype)
    body = _bytes(part).partition(b"\r\n\r\n")[2]
    pairs = [_string(text) for pair in (part.get_params() or [])[1:] for text in pair]
    parameters = b"(%s)" % b" ".join(pairs) if pairs else b"NIL"
    encoding = _string(str(part.get("Content-Transfer-Encoding", "7bit")))
    kind = _string(part.get_content_maintype())
    fields = [kind, subtype, parameters, _field(part, "Content-ID"), b"NIL", encoding, b"%d" % len(body)]
    if part.get_content_maintype() == "text":
        fields.append(b"%d" % body.count(b"\n"))
    elif part.get_content_type() == "message/rfc822" and isinstance(children, list) and isinstance(children[0], Part):
        fields += [_envelope(children[0]), _structure(children[0]), b"%d" % body.count(b"\n")]
    return b"(%s)" % b" ".join(fields)


def _bytes(part: Part) -> bytes:
    return part.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _field(part: Part, name: str) -> bytes:
    value = part.get(name)
    return _string(None if value is None else str(value))


def _string(text: str | None) -> bytes:
    if text is None:
        return b"NIL"
    flat = " ".join(text.split())
    ascii_text = flat if flat.isascii() else Header(flat.encode("utf-8", "replace").decode(), "utf-8").encode()
    return b'"%s"' % ascii_text.replace("\\", "\\\\").replace('"', '\\"').encode()


def _literal(data: bytes) -> bytes:
    return b"{%d}\r\n%s" % (len(data), data)
