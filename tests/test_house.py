"""The house rules that no linter knows (ARCHITECTURE part 3): they are read off the source, so that they stay true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import proxy
from proxy import config

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "proxy"
TESTS = ROOT / "tests"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
MODULES = sorted(str(file.relative_to(SOURCE)) for file in SOURCE.rglob("*.py"))
INITS = [module for module in MODULES if module.endswith("__init__.py")]

TESTED_TOGETHER = {
    "app/verbs/test_configuring.py": ("app/verbs/lookup.py",),
    "end_to_end/test_daemon.py": ("app/verbs/serving.py",),
    "systemd/test_unit.py": ("app/notify.py",),
    "demo/test_identity.py": ("demo/directory.py", "demo/doors.py", "demo/grants.py"),
    "demo/test_journey.py": ("demo/guide.py", "demo/program.py", "demo/round_trip.py"),
    "demo/test_mailbox.py": (
        "demo/conversation.py",
        "demo/imap_fetch.py",
        "demo/imap_server.py",
        "demo/pop3_server.py",
        "demo/smtp_server.py",
    ),
    "network/test_dial.py": ("network/reactor.py",),
    "network/test_stream.py": ("network/farewell.py",),
    "protocols/test_smtp.py": ("protocols/smtp_upstream.py",),
}
"""Modules that are tested from outside, through the one they serve; by the test that does it."""

RFCS = {
    **dict.fromkeys((9051, 3501, 7888, 4959, 5530), "IMAP"),
    **dict.fromkeys((1939, 2449, 2595, 5034, 3206), "POP3"),
    **dict.fromkeys((5321, 3207, 4954, 6409), "SMTP"),
    8314: "implicit TLS",
    **dict.fromkeys((4422, 4616), "SASL"),
    **dict.fromkeys((6749, 7636, 8252, 8628), "OAuth"),
}
"""ARCHITECTURE part 3, in its order."""
FURTHER_RFCS = {
    1870: "SMTP SIZE",
    2177: "IMAP IDLE",
    2971: "IMAP ID",
    3030: "SMTP CHUNKING",
    3339: "times as text",
    5161: "IMAP ENABLE",
    6152: "SMTP 8BITMIME",
    7523: "an app's certificate at the sign-in service",
    7662: "what a token is worth, asked of the sign-in service",
    8305: "which address is dialled first",
    8446: "TLS 1.3",
}

TWISTED = ("app/", "network/")
TWISTED_DEFERREDS = tuple(
    f"accounts/{name}.py"
    for name in ("grants", "invitations", "microsoft", "passdb", "sign_in", "store", "tokens", "upkeep")
)
DOORS = {
    "msal": ("accounts/microsoft.py",),
    "requests": ("accounts/microsoft.py",),
    "sqlitedict": ("accounts/rows.py",),
    "yaml": ("config/document.py",),
    "jinja2": ("app/page/site.py", "app/programs/fill.py"),
    "cryptography": (
        "accounts/microsoft.py",  # an app's certificate
        "accounts/vault.py",
        "network/tls.py",
        "network/certificates.py",
        "app/importing/seals.py",  # what other programs sealed
        "app/doctor/certificates.py",
        "demo/certificates.py",
        "demo/directory.py",
    ),
    "keyring": ("accounts/keys.py",),
    "prometheus_client": ("metrics.py",),
    "twisted": (*TWISTED, *TWISTED_DEFERREDS),
}
"""Where each outside library may come in: files, and folders with all that is in them."""
DISTRIBUTIONS = {"yaml": "pyyaml", "prometheus_client": "prometheus-client"}
BROUGHT_ALONG = {"urllib3": "requests", "zope": "twisted"}
"""What comes with a library and belongs to its interface."""


def tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / module).read_text())


def imports(parsed: ast.AST) -> Iterator[str]:
    """Every imported name in full: `proxy.config.settings.App` as well as `proxy.config.settings`."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def comes_from(name: str) -> str:
    top = name.partition(".")[0]
    return BROUGHT_ALONG.get(top, top)


def dotted(module: str) -> str:
    return f"proxy.{module.removesuffix('.py').replace('/', '.')}"


def has_code(module: str) -> bool:
    plain = (ast.Expr, ast.Import, ast.ImportFrom)
    return module not in INITS and not all(isinstance(node, plain) for node in tree(module).body)


WITH_CODE = [module for module in MODULES if has_code(module)]


def names(test: Path, module: str) -> bool:
    """Whether this test is of this module: by its own name, by an import, or by saying so in its docstring."""
    parsed = ast.parse(test.read_text())
    said = re.findall(r"[\w/]+\.py", ast.get_docstring(parsed) or "")
    name = module.rpartition("/")[2]
    return test.name == f"test_{name}" or dotted(module) in imports(parsed) or name in said or module in said


# --- the tree


@pytest.mark.parametrize("module", WITH_CODE)
def test_a_module_is_tested_where_it_stands(module: str) -> None:
    folder = (TESTS / module).parent
    tests = folder.glob("test_*.py") if folder == TESTS else folder.rglob("test_*.py")
    together = {each for modules in TESTED_TOGETHER.values() for each in modules}
    tested = module in together or any(names(test, module) for test in tests)
    assert tested, f"no test in {folder} names it"


def test_what_is_tested_together_is_there() -> None:
    assert [test for test in TESTED_TOGETHER if not (TESTS / test).is_file()] == []
    assert {each for modules in TESTED_TOGETHER.values() for each in modules} <= set(MODULES)


def test_the_map_names_every_part() -> None:
    drawn = re.findall(r"^    (\w+)/? +\S", proxy.__doc__ or "", re.MULTILINE)
    parts = {module.partition("/")[0].removesuffix(".py") for module in MODULES} - {"__init__", "__main__"}
    assert set(drawn) == parts
    assert len(drawn) == len(parts)


def test_the_readme_draws_every_module() -> None:
    drawn = re.search(r"## The map of the house.*?^```$(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert drawn is not None
    folders: list[str] = []
    there = set()
    for line in drawn[1].split("\nproxy/\n")[1].split("\ntests/")[0].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        opened = re.match(r" +(\w+/)", line)
        folders[depth - 1 :] = [opened[1]] if opened else []
        there |= {"".join(folders) + name for name in re.findall(r"(?<![\w/])\w+\.py", line)}
    assert there == set(MODULES) - set(INITS)


def test_every_package_is_packed() -> None:
    """setuptools finds what is a package; a folder of modules without an `__init__.py` would be left out."""
    assert PROJECT["tool"]["setuptools"]["packages"]["find"]["include"] == ["proxy", "proxy.*"]
    folders = {(SOURCE / module).parent for module in MODULES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_what_is_no_module_is_packed_too() -> None:
    patterns = [pattern for each in PROJECT["tool"]["setuptools"]["package-data"].values() for pattern in each]
    others = [file for file in SOURCE.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")]
    left_out = [file for file in others if not any(fnmatch(str(file), f"*/{pattern}") for pattern in patterns)]
    assert left_out == []


@pytest.mark.parametrize("module", [*MODULES, *(str(file.relative_to(TESTS)) for file in TESTS.rglob("*.py"))])
def test_a_name_says_what_is_in_it(module: str) -> None:
    words = set(re.split(r"[/_]", module.removesuffix(".py").lower()))
    assert not words & {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}


@pytest.mark.parametrize("module", WITH_CODE)
def test_a_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(tree(module))


# --- outside libraries


@pytest.mark.parametrize("library", DOORS)
def test_an_outside_library_has_its_doors(library: str) -> None:
    used = {module for module in MODULES if any(comes_from(name) == library for name in imports(tree(module)))}
    assert {module for module in used if not module.startswith(DOORS[library])} == set()
    unused = {door for door in DOORS[library] if not any(module.startswith(door) for module in used)}
    assert unused == set(), "a door that nobody uses is closed"


def test_there_is_no_other_outside_library() -> None:
    known = {*DOORS, "proxy", *sys.stdlib_module_names}
    strangers = {
        (module, name) for module in MODULES for name in imports(tree(module)) if comes_from(name) not in known
    }
    assert strangers == set()
    extras = {name: each for name, each in PROJECT["project"]["optional-dependencies"].items() if name != "dev"}
    wanted = [*PROJECT["project"]["dependencies"], *(one for each in extras.values() for one in each)]
    declared = {re.split(r"[^\w-]", each.lower())[0] for each in wanted}
    assert {DISTRIBUTIONS.get(library, library) for library in DOORS} == declared


@pytest.mark.parametrize("module", MODULES)
def test_no_module_takes_the_reactor_at_its_top(module: str) -> None:
    top = ast.Module([node for node in tree(module).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert "twisted.internet.reactor" not in set(imports(top))


# --- what is said


def test_every_rfc_that_is_cited_is_listed() -> None:
    cited: dict[int, set[str]] = {}
    for file in (*SOURCE.rglob("*.py"), *TESTS.rglob("*.py"), *TESTS.rglob("*.txt")):
        for listed in re.findall(r"\bRFCs? (\d{3,4}(?:, \d{3,4})*)", file.read_text()):
            for number in listed.split(", "):
                cited.setdefault(int(number), set()).add(str(file.relative_to(ROOT)))
    assert {number: where for number, where in cited.items() if number not in {**RFCS, **FURTHER_RFCS}} == {}
    assert FURTHER_RFCS.keys() - cited.keys() == set(), "listed, and cited nowhere"


def test_the_example_configuration_loads(tmp_path: Path) -> None:
    example = tmp_path / "config.yaml"
    example.write_text((ROOT / "config.example.yaml").read_text())
    example.chmod(0o600)
    loaded = config.read(example, {"HOME": str(tmp_path)})
    assert list(loaded.findings) == []
    assert [account.name for account in loaded.config.accounts] == ["alice@contoso.com"]


def test_the_version_has_one_source() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "proxy.__version__"}
    where = [module for module in MODULES if f'"{proxy.__version__}"' in (SOURCE / module).read_text()]
    assert where == ["__init__.py"]
    command = [sys.executable, "-m", "proxy", "--version"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said == f"mailferry {proxy.__version__}\n"
