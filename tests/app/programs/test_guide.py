"""A guide as text, and files as octets."""

from __future__ import annotations

from proxy.app.programs.guide import File, Guide, Needs, Part, Step, as_text


def test_a_guide_as_text() -> None:
    steps = (
        Step("Type this.", (("Server", "127.0.0.1"), ("Port", "1143"))),
        Step("Run this.", code="one\ntwo"),
        Step("Trust it.", needs=Needs.CERTIFICATE),
        Step("Open it.", file="a.xml"),
        Step("A file that is not there.", file="b.xml"),
    )
    guide = Guide("Program", (Part("By hand", steps),), (File("a.xml", "text/xml", "<a/>"),), ("Mind this.",))
    text = as_text(guide, lambda needs: f"get the {needs.value}", lambda file: f"fetch {file.name}")
    assert text == (
        "Program\n=======\n\n"
        "By hand\n-------\n"
        " 1. Type this.\n      Server  127.0.0.1\n      Port    1143\n"
        " 2. Run this.\n\n      one\n      two\n\n"
        " 3. Trust it.\n      get the certificate\n"
        " 4. Open it.\n      fetch a.xml\n"
        " 5. A file that is not there.\n\n"
        "Note: Mind this.\n"
    )


def test_long_steps_are_wrapped_and_values_are_not() -> None:
    step = Step("word " * 60, (("Address", "x" * 150),))
    text = as_text(Guide("T", (Part("P", (step,)),)), lambda needs: "", lambda file: "")
    lines = text.splitlines()
    assert max(len(line) for line in lines if "word" in line) <= 100
    assert f"      Address  {'x' * 150}" in lines


def test_a_file_as_its_system_wants_it() -> None:
    assert File("a", "text/plain", "é\n").octets == "é\n".encode()
    windows = File("a.reg", "text/plain", "é\nb\r\n", encoding="utf-16-le", newline="\r\n")
    assert windows.octets == b"\xff\xfe" + "é\r\nb\r\n".encode("utf-16-le")
    binary = File("a.iaf", "application/octet-stream", b"\0\n")
    assert (binary.octets, binary.text) == (b"\0\n", "")
    assert "secret" not in repr(File("a", "b", "secret"))


def test_a_file_is_found_by_its_name() -> None:
    file = File("a", "text/plain", "")
    assert Guide("T", files=(file,)).file("a") is file
    assert Guide("T", files=(file,)).file("b") is None
