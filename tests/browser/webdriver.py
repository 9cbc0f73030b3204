"""A Chromium of a test's own, driven through chromedriver: the W3C WebDriver protocol over HTTP. Not a test.

What it is: opening, clicking, typing, reading, taking pictures, and what the browser's own tools say (console,
requests, colour scheme, width, scripts off). What it is not: a library; each method is what some test here needs.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from tests.servers.child import Child, ServerFailed, free_port, program, tail, wait_until

ANSWER_TIMEOUT_S = 90.0  # a cold start of Chromium on two busy cores
PAGE_DEADLINE_S = 60.0
ELEMENT_DEADLINE_S = 15.0
DESKTOP, PHONE = (1280, 900), (360, 780)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's own name for a reference
_FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--lang=en-GB",
)
Scheme = Literal["light", "dark"]


class BrowserFailed(Exception):
    """The browser says that it cannot; `kind` is the protocol's word for it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text.partition(chr(10))[0]}")
        self.kind = kind


class Element:
    """Something on the page, as long as the page stays."""

    def __init__(self, browser: Browser, reference: str) -> None:
        self._browser = browser
        self.reference = reference

    @property
    def text(self) -> str:
        return str(self._browser.ask("GET", f"/element/{self.reference}/text"))

    def attribute(self, name: str) -> str | None:
        value = self._browser.ask("GET", f"/element/{self.reference}/attribute/{name}")
        return None if value is None else str(value)

    def click(self) -> None:
        """As a person: scrolled to, and only if nothing lies over it. Waits for the page that follows."""
        self._browser.ask("POST", f"/element/{self.reference}/click", {})

    def type(self, text: str) -> None:
        """In place of what stands there."""
        self._browser.ask("POST", f"/element/{self.reference}/clear", {})
        self._browser.ask("POST", f"/element/{self.reference}/value", {"text": text})


class Browser:
    """A context manager. `trusts` are certificates (SHA-256 of the public key, base64) that it takes for good."""

    def __init__(self, *, trusts: tuple[str, ...] = (), scripts: bool = True) -> None:
        self._trusts = trusts
        self.scripts = scripts
        self._port = free_port()
        self._session = ""
        self._child: Child | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="mf-chromium-"))

    # Life

    def __enter__(self) -> Self:
        log = self._folder / "chromedriver.log"
        command = [program("chromedriver"), f"--port={self._port}"]
        self._child = Child("chromedriver", command, log, environment={"HOME": str(self._folder)})
        try:
            self._child.wait_ready(self._answers)
            arguments = [*_FLAGS, f"--user-data-dir={self._folder / 'profile'}", "--window-size=1280,900"]
            if self._trusts:
                arguments.append(f"--ignore-certificate-errors-spki-list={','.join(self._trusts)}")
            options = {"args": arguments, "binary": program("chromium")}
            always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": always}})
            self._session = made["sessionId"]
            self.tool("Emulation.setScriptExecutionDisabled", value=not self.scripts)
        except BaseException:
            print(tail(log))
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(BrowserFailed, OSError):
            self._call("DELETE", f"/session/{self._session}")
        self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    # Going and reading

    def open(self, address: str) -> None:
        self.ask("POST", "/url", {"url": address})

    @property
    def address(self) -> str:
        return str(self.ask("GET", "/url"))

    @property
    def path(self) -> str:
        return urlsplit(self.address).path

    @property
    def title(self) -> str:
        return str(self.ask("GET", "/title"))

    @property
    def text(self) -> str:
        """What a person sees on the page; if it gives way to another meanwhile, on that one."""
        try:
            return self._find("css selector", "body")[0].text
        except (BrowserFailed, IndexError):
            return self.find("body").text

    def find(self, css: str) -> Element:
        """The first; waited for, as a page may be under way. Raises: ServerFailed: there is none."""
        self.wait_for(f"{css} is on {self.path}", lambda: self.has(css), ELEMENT_DEADLINE_S)
        return self.find_all(css)[0]

    def find_all(self, css: str) -> list[Element]:
        return self._find("css selector", css)

    def _find(self, how: str, what: str) -> list[Element]:
        found = self.ask("POST", "/elements", {"using": how, "value": what})
        return [Element(self, each[_ELEMENT]) for each in found]

    def has(self, css: str) -> bool:
        return bool(self.find_all(css))

    def click(self, text: str) -> None:
        """The first link or button that says this. Raises: BrowserFailed: there is none; with what the page says."""
        path = f"//*[self::a or self::button or self::summary][contains(normalize-space(.), {json.dumps(text)})]"
        try:
            self.wait_for(f"{text!r} can be clicked", lambda: self._find("xpath", path), ELEMENT_DEADLINE_S)
        except ServerFailed as failed:
            raise BrowserFailed(f"{failed}; on {self.path}", self.text.replace("\n", " | ")) from None
        self._find("xpath", path)[0].click()

    def fill(self, **fields: str) -> None:
        """The inputs of these names."""
        for name, value in fields.items():
            self.find(f"[name={name}]").type(value)

    def choose(self, name: str, value: str) -> None:
        """A radio button, a checkbox or an option of a list."""
        self.find(f'input[name="{name}"][value="{value}"], select[name="{name}"] > option[value="{value}"]').click()

    def wait_for(self, what: str, holds: Callable[[], object], deadline_s: float = PAGE_DEADLINE_S) -> None:
        """Until it holds, on a page that may change meanwhile."""

        def looks() -> bool:
            with suppress(BrowserFailed, IndexError):  # the page went away under the question
                return bool(holds())
            return False

        wait_until(what, looks, deadline_s)

    def read(self, words: str) -> None:
        """Wait until a person sees these words."""
        self.wait_for(f"the page says {words!r}", lambda: words in self.text)

    def run(self, script: str, *arguments: Any) -> Any:
        """The result of a function's body, run in the page; a promise is waited for."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    # The browser's own tools

    def hold(self) -> None:
        """The page stays as it is: a refresh that is due does not come (HTML, window.stop())."""
        self.run("window.stop()")

    def tool(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def press(self, key: str) -> None:
        """One key, on whatever has the focus."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def prefer(self, scheme: Scheme) -> None:
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.tool("Emulation.setEmulatedMedia", features=features)

    @contextmanager
    def on_paper(self) -> Iterator[None]:
        """As the page would be printed."""
        self.tool("Emulation.setEmulatedMedia", media="print")
        try:
            yield
        finally:
            self.tool("Emulation.setEmulatedMedia", media="")
            self.prefer("light")

    def resize(self, size: tuple[int, int]) -> None:
        """The page's own width and height in CSS pixels."""
        self.tool(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )

    @contextmanager
    def seen(self, scheme: Scheme = "light", size: tuple[int, int] = DESKTOP) -> Iterator[None]:
        """In this colour scheme and size, and afterwards as before."""
        self.prefer(scheme)
        self.resize(size)
        try:
            yield
        finally:
            self.prefer("light")
            self.resize(DESKTOP)

    def picture(self, file: Path) -> None:
        """The whole page, however long, as PNG."""
        size = self.tool("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.tool("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the console holds since the last call: errors and warnings, blocked by the policy or failed to load.

        That the page itself answers with an error's status is no complaint.
        """
        entries = self.ask("POST", "/se/log", {"type": "browser"})
        told = [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]
        return [text for text in told if not (text.startswith(f"{self.address} ") and "with a status of 4" in text)]

    def hosts(self) -> set[str]:
        """Scheme, host and port of everything requested since the last call."""
        hosts = set()
        for entry in self.ask("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                parts = urlsplit(message["params"]["request"]["url"])
                if parts.scheme in ("http", "https", "ws", "wss"):
                    hosts.add(f"{parts.scheme}://{parts.netloc}")
        return hosts

    # The protocol

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._call(method, f"/session/{self._session}{path}", body)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_TIMEOUT_S)
        try:
            octets = None if body is None else json.dumps(body).encode()
            connection.request(method, path, octets, {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise BrowserFailed(str(value["error"]), str(value.get("message", "")))
        return value

    def _answers(self) -> bool:
        with suppress(OSError):
            return bool(self._call("GET", "/status")["ready"])
        return False
