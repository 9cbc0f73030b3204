"""GROUND: where secrets, certificates and the store's key come from, and whether others could read them there.

A secret is a value, `{file: …}`, `{env: NAME}` or `{credential: NAME}` (a file in `$CREDENTIALS_DIRECTORY`, which
systemd keeps for us alone: FACTS 6). Called by the readers beside it. It reads secrets, never keys or certificates;
those are opened by who uses them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from proxy.config.document import ScalarNode
from proxy.config.fields import Section
from proxy.config.files import FileTrouble, exposure, read_regular, reason
from proxy.config.findings import Place, quoted
from proxy.config.settings import Certificate, KeySource, Secret

MAX_SECRET_OCTETS = 65_536  # Entra's secrets have 40; room for whatever a file has around one
KEY_NAME = "mailferry.key"  # in the state folder, and as a systemd credential


def secret(section: Section, key: str) -> Secret | None:
    """The secret of this key, wherever it comes from; None when the key is missing or the source gives none."""
    node = section.node(key)
    if node is None:
        return None
    place = section.at(key)
    reading = section.reading
    if isinstance(node, ScalarNode):
        if exposed := reading.exposed.get(place.file):
            section.error(place, f"a secret stands in this file, and {exposed}", f"chmod 600 {place.file}")
        value = section.text_of(node)
        return Secret(value) if value else None
    with Section(node, reading) as source:
        file = source.path("file")
        variable = source.text("env")
        credential = source.text("credential")
    if not source.sound or not _only_one(section, place, file, credential, variable):
        return None
    if variable:
        if variable in reading.environ:
            return _sound(section, place, reading.environ[variable])
        section.error(place, f"the environment variable {quoted(variable)} is not set", "set it, or write {file: PATH}")
        return None
    found = _credential(section, place, credential) if credential else file
    return _kept_in(section, place, found, private=not credential) if found else None


def certificate(section: Section, key: str) -> Certificate | None:
    """A certificate and its private key; the files are there, and the key is private.

    `{credential: NAME}` is the credentials NAME.pem and NAME.key, which systemd keeps private.
    """
    node = section.node(key)
    if node is None:
        return None
    with Section(node, section.reading) as pair:
        if name := pair.text("credential"):
            for other in ("file", "key"):
                pair.forbidden(other, "stands beside a credential", "remove one of the two")
            place = pair.at("credential")
            chain = _credential(pair, place, f"{name}.pem")
            its_key = _credential(pair, place, f"{name}.key") if chain else None
            return Certificate(chain, its_key) if chain and its_key else None
        file = pair.path("file")
        private_key = pair.path("key")
        for name, path in (("file", file), ("key", private_key)):
            if path is None and not pair.has(name):
                pair.missing(name, "write {file: CERTIFICATE.pem, key: KEY.pem}")
        if private_key:
            _private(pair, pair.at("key"), private_key)
        if file:
            _present(pair, pair.at("file"), file)
    return Certificate(file, private_key) if file and private_key else None


def trusted(section: Section) -> Path | None:
    """The PEM file of `ca_file`, which is there."""
    file = section.path("ca_file")
    if file:
        _present(section, section.at("ca_file"), file)
    return file


def key_source(section: Section, state_dir: Path) -> KeySource:
    """The store's key: as written under `key`, else systemd's credential, else a file of our own making."""
    reading = section.reading
    own = KeySource(state_dir / KEY_NAME, created=True)
    node = section.node("key")
    place = section.at("key")
    if node is None:
        directory = reading.environ.get("CREDENTIALS_DIRECTORY")
        if directory and os.path.exists(os.path.join(directory, KEY_NAME)):
            return KeySource(Path(directory, KEY_NAME), created=False)
        if os.path.exists(own.file):
            _private(section, place, own.file)
        return own
    with Section(node, reading) as source:
        file = source.path("file")
        credential = source.text("credential")
        keyring = source.flag("keyring", source.has("keyring"))  # what is neither true nor false is told already
        if not source.sound or not _only_one(section, place, file, credential, keyring, also="{keyring: true}"):
            return own
    if keyring:
        return KeySource(own.file, created=True, keyring=True)
    if credential:
        file = _credential(section, place, credential)
    elif file:
        _private(section, place, file)
    return KeySource(file, created=False) if file else own


def _only_one(section: Section, place: Place, *sources: object, also: str = "{env: NAME}") -> bool:
    """Whether exactly one source is given."""
    given = sum(source not in (None, "", False) for source in sources)
    if given != 1:
        problem = "names no source" if given == 0 else "names more than one source"
        section.error(place, problem, f"write one of {{file: PATH}}, {{credential: NAME}}, {also}")
    return given == 1


def _sound(section: Section, place: Place, value: str) -> Secret | None:
    if value.strip() and value.isprintable():
        return Secret(value)
    section.error(place, "the secret there is empty or more than a line of text", "put the secret alone there")
    return None


def _kept_in(section: Section, place: Place, file: Path, *, private: bool) -> Secret | None:
    """The secret in this file; `private`: it is ours to see that nobody else can read it."""
    try:
        content, state = read_regular(file, MAX_SECRET_OCTETS)
        value = content.decode("utf-8").strip("\r\n")
    except FileTrouble as trouble:
        section.error(place, f"{file} {trouble}", "write the path of a file that mailferry can read")
    except UnicodeDecodeError:
        section.error(place, f"{file} does not hold text", "put the secret alone there")
    else:
        if private and (exposed := exposure(state)):
            section.error(place, f"{file} is not private: {exposed}", f"chmod 600 {file}")
        return _sound(section, place, value)
    return None


def _credential(section: Section, place: Place, name: str) -> Path | None:
    directory = section.reading.environ.get("CREDENTIALS_DIRECTORY")
    if "/" in name or name in (".", ".."):
        section.error(place, f"{quoted(name)} is not a credential's name", "write the name alone, without a folder")
    elif not directory:
        section.error(
            place,
            "there are no credentials: $CREDENTIALS_DIRECTORY is not set",
            f"start mailferry by systemd with LoadCredential={name}:PATH, or write {{file: PATH}}",
        )
    elif not os.path.isfile(os.path.join(directory, name)):
        section.error(
            place, f"systemd handed over no credential {quoted(name)}", f"add LoadCredential={name}:PATH to the unit"
        )
    else:
        return Path(directory, name)
    return None


def _private(section: Section, place: Place, file: Path) -> None:
    """Tell when this file is not there, or others can read it."""
    try:
        state = os.stat(file)
    except OSError as error:
        section.error(place, f"{file} cannot be used: {reason(error)}", "write the path of a file that is there")
        return
    if not stat.S_ISREG(state.st_mode):
        section.error(place, f"{file} is not a regular file", "write the path of a file")
    elif exposed := exposure(state):
        section.error(place, f"{file} is not private: {exposed}", f"chmod 600 {file}")


def _present(section: Section, place: Place, file: Path) -> None:
    if not os.path.isfile(file):
        section.error(place, f"{file} is not a file that mailferry can reach", "write the path of a PEM file")
