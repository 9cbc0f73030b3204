"""How a system or a program is told to trust the local authority: steps for each, as data."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.app.programs.guide import Guide, Needs, Part, Step

FILE = "mailferry-ca.crt"
"""What the exported certificate is called in the steps; Windows and Debian want this ending."""


@dataclass(frozen=True, slots=True)
class System:
    """One system, or one program that keeps certificates of its own."""

    name: str
    """As `ca --steps` takes it."""
    title: str
    steps: tuple[Step, ...]

    def guide(self) -> Guide:
        get = Step("Get the certificate's file.", needs=Needs.CERTIFICATE)
        return Guide(f"Trust mailferry's certificate: {self.title}", (Part("Steps", (get, *self.steps)),))


SYSTEMS = (
    System(
        "windows",
        "Windows (Outlook, Outlook Express, Windows Live Mail)",
        (
            Step(
                "Open the file with a double click, choose Install Certificate > Current User > Place all certificates "
                "in the following store > Browse > Trusted Root Certification Authorities. Compare the thumbprint that "
                "Windows shows, and confirm."
            ),
            Step("Or, in a command prompt of that user:", code=f"certutil -user -addstore Root {FILE}"),
            Step("Close and open the mail program."),
        ),
    ),
    System(
        "macos",
        "macOS (Apple Mail)",
        (
            Step(
                "In Terminal, or by opening the file in Keychain Access and choosing Trust > Always Trust:",
                code=f"security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db {FILE}",
            ),
            Step("Close and open Mail."),
        ),
    ),
    System(
        "ios",
        "iPhone and iPad",
        (
            Step("Send the file to the device (AirDrop, or a message), open it, and install it in Settings > Profile."),
            Step("Settings > General > About > Certificate Trust Settings: switch on “mailferry on this machine”."),
        ),
    ),
    System(
        "android",
        "Android",
        (
            Step(
                "Copy the file to the device; Settings > Security > Encryption & credentials > Install a certificate > "
                "CA certificate. Android warns that somebody could read your traffic: this authority can only sign for "
                "this machine's names."
            ),
            Step(
                "Not every mail program on Android heeds it; where one does not, accept the certificate in the program "
                "itself."
            ),
        ),
    ),
    System(
        "debian",
        "Debian, Ubuntu",
        (Step("As root:", code=f"cp {FILE} /usr/local/share/ca-certificates/{FILE}\nupdate-ca-certificates"),),
    ),
    System(
        "fedora",
        "Fedora, Red Hat, SUSE",
        (
            Step("Fedora and Red Hat, as root:", code=f"cp {FILE} /etc/pki/ca-trust/source/anchors/\nupdate-ca-trust"),
            Step("SUSE, as root:", code=f"cp {FILE} /etc/pki/trust/anchors/\nupdate-ca-certificates"),
        ),
    ),
    System(
        "thunderbird",
        "Thunderbird (and Firefox)",
        (
            Step(
                "It keeps certificates of its own. Settings > Privacy & Security > Certificates > Manage Certificates "
                "> Authorities > Import: choose the file, and tick Trust this CA to identify websites; this counts for "
                "mail too."
            ),
        ),
    ),
    System(
        "java",
        "Java programs",
        (
            Step(
                "Java keeps certificates of its own; the password of its store is “changeit” unless somebody changed "
                "it:",
                code=f"keytool -importcert -cacerts -alias mailferry -file {FILE}",
            ),
        ),
    ),
    System(
        "file",
        "mutt, msmtp, mbsync, fetchmail, curl and others that read a file",
        (
            Step(
                "They take the file itself; `mailferry settings` writes its place into their files.",
                (
                    ("mutt", "certificate_file"),
                    ("msmtp", "tls_trust_file"),
                    ("mbsync", "CertificateFile"),
                    ("fetchmail", "sslcertfile"),
                    ("curl", "--cacert"),
                ),
            ),
        ),
    ),
)


def find_system(name: str) -> System | None:
    other = {"firefox": "thunderbird", "ubuntu": "debian", "iphone": "ios", "mac": "macos"}
    return next((each for each in SYSTEMS if each.name == other.get(name, name)), None)
