"""GROUND: Microsoft's clouds: where to sign in and where the mailboxes are (FACTS 1.1), and `upstreams` over it.

The sovereign clouds are from documents and never tested; what a person writes under `upstreams` stands for every cloud.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.config.document import Node
from proxy.config.fields import Reading, Section
from proxy.config.settings import PROTOCOL_NAMES, Cloud, ProtocolName, Upstream, UpstreamTls
from proxy.config.sources import trusted

SIGN_IN_HOSTS: Mapping[Cloud, str] = {
    Cloud.GLOBAL: "login.microsoftonline.com",
    Cloud.GCC_HIGH: "login.microsoftonline.us",
    Cloud.DOD: "login.microsoftonline.us",
    Cloud.CHINA: "login.partner.microsoftonline.cn",
}
_MAIL_HOSTS: Mapping[Cloud, str] = {
    Cloud.GLOBAL: "outlook.office365.com",
    Cloud.GCC_HIGH: "outlook.office365.us",
    Cloud.DOD: "outlook-dod.office365.us",
    Cloud.CHINA: "partner.outlook.cn",
}
_SMTP_HOSTS: Mapping[Cloud, str] = {**_MAIL_HOSTS, Cloud.GLOBAL: "smtp.office365.com"}
_PORTS: Mapping[ProtocolName, int] = {"imap": 993, "pop3": 995, "smtp": 587}
_TLS: Mapping[ProtocolName, UpstreamTls] = {
    "imap": UpstreamTls.IMPLICIT,
    "pop3": UpstreamTls.IMPLICIT,
    "smtp": UpstreamTls.STARTTLS,
}


def read_upstreams(node: Node, reading: Reading) -> dict[tuple[Cloud, ProtocolName], Upstream]:
    """The upstream of every cloud and protocol."""
    upstreams: dict[tuple[Cloud, ProtocolName], Upstream] = {}
    with Section(node, reading) as section:
        for protocol in PROTOCOL_NAMES:
            written = section.node(protocol)
            if written is None:
                upstreams.update({(cloud, protocol): _default(cloud, protocol) for cloud in Cloud})
            else:
                upstreams.update(_read_upstream(written, protocol, reading))
    return upstreams


def _default(cloud: Cloud, protocol: ProtocolName) -> Upstream:
    host = (_SMTP_HOSTS if protocol == "smtp" else _MAIL_HOSTS)[cloud]
    return Upstream(host, _PORTS[protocol], _TLS[protocol], None, exchange=True)


def _read_upstream(node: Node, protocol: ProtocolName, reading: Reading) -> dict[tuple[Cloud, ProtocolName], Upstream]:
    """What is written, for every cloud; what is not written is the cloud's own."""
    with Section(node, reading) as section:
        host = section.host("host", "") if section.has("host") else ""
        port = section.integer("port", _PORTS[protocol], 1, 65_535)
        tls = section.member(
            "tls",
            UpstreamTls,
            _TLS[protocol],
            "write implicit or starttls: Exchange takes no token without TLS",
        )
        ca_file = trusted(section)
    upstreams: dict[tuple[Cloud, ProtocolName], Upstream] = {}
    for cloud in Cloud:
        name = host or _default(cloud, protocol).host
        exchange = name in (*_MAIL_HOSTS.values(), *_SMTP_HOSTS.values())
        upstreams[cloud, protocol] = Upstream(name, port, tls, ca_file, exchange)
    return upstreams
