"""A server of the real command, a client that behaves like our page, and a headless Chromium. Data is synthetic."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from ward_of_doctors import PASSWORD, client_id

webdriver = pytest.importorskip("selenium.webdriver", reason="browser tests need selenium")
from selenium.common.exceptions import WebDriverException  # noqa: E402

from xinglin.annotate.people import list_raters, open_session  # noqa: E402
from xinglin.annotate.store import Store  # noqa: E402

TOKEN = re.compile(r'name="csrf" value="([0-9a-f]{64})"')
LEASE = re.compile(r"&#34;lease&#34;: &#34;([\w-]+)&#34;")
START = 240.0  # seconds a server may take to come up beside other work


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """`xinglin annotate serve` as a process of its own."""

    path: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Server:
        command = [sys.executable, "-m", "xinglin", "annotate", "serve", str(self.path), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + START
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.address}/health", timeout=5).status_code == 200:
                    return self
            time.sleep(0.05)
        raise AssertionError("the server did not come up")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


class Page:
    """A browser without a script: cookies, the token of the pages, the lease of the item shown."""

    def __init__(self, client: httpx.Client, name: str, password: str = PASSWORD) -> None:
        self.client = client
        self.name, self.password = name, password
        self.token = ""

    def sign_in(self) -> Page:
        form = TOKEN.search(self.client.get("/login").text)
        assert form is not None
        fields = {"csrf": form[1], "name": self.name, "password": self.password}
        found = self.client.post("/login", data=fields)
        assert found.status_code == 303, found.status_code
        self.token = TOKEN.search(self.client.get("/", follow_redirects=True).text)[1]  # type: ignore[index]
        return self

    def resume(self, session: str) -> Page:
        """Signed in by a session opened beside the page: a password costs a tenth of a second on purpose."""
        self.client.cookies.set("xinglin_session", session)
        self.token = self.client.get("/api/token").json()["csrf"]
        return self

    def lease(self, project: int, path: str = "") -> str | None:
        """The lease of the next item, or None when nothing is left."""
        found = self.client.get(f"/p/{project}{path}")
        assert found.status_code == 200, found.status_code
        shown = LEASE.search(found.text)
        return shown[1] if shown else None

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, headers={"x-csrf-token": self.token}, **more)

    def vote(self, lease: str, ranks: tuple[int, ...] = (1, 2), key: str = "", **verdict: Any) -> httpx.Response:
        return self.post("/api/vote", ballot(lease, ranks, key, **verdict))


def ballot(lease: str, ranks: tuple[int, ...] = (1, 2), key: str = "", **verdict: Any) -> dict[str, Any]:
    """The body of a vote."""
    return {
        **{"lease": lease, "client_id": key or client_id(), "events": [1000, 5000]},
        "verdict": {"ranks": list(ranks), **verdict},
    }


def session(store: Store, name: str) -> str:
    """The token of a new session of the rater of this name."""
    return open_session(store, next(one for one in list_raters(store) if one.name == name))


@contextlib.contextmanager
def serving(path: Path) -> Iterator[Server]:
    server = Server(path)
    try:
        yield server.start()
    finally:
        server.stop()


class Browser:
    """A headless Chromium driven by keys alone, unless a test asks for more; it counts the presses."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.presses = 0

    def open(self, server: Server, who: str, path: str) -> Browser:
        """Sign in through a session cookie of the store, then go."""
        self.driver.get(f"{server.address}/health")
        self.driver.delete_all_cookies()
        self.driver.execute_script("localStorage.clear(); sessionStorage.clear()")
        self.driver.add_cookie({"name": "xinglin_session", "value": who, "httpOnly": True, "sameSite": "Strict"})
        return self.go(f"{server.address}{path}")

    def go(self, address: str) -> Browser:
        self.driver.get(address)
        return self

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)
            self.presses += 1

    def type(self, text: str) -> None:
        self.driver.switch_to.active_element.send_keys(text)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def script(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    @property
    def lease(self) -> str:
        page = json.loads(self.one("body").get_attribute("data-page") or "{}")
        return str(page.get("lease", ""))

    def wait(self, what: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Until something is true. Elements of a page that is being left count as not there."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(WebDriverException):
                if found := what():
                    return found
            time.sleep(0.05)
        raise AssertionError("it did not come")

    def judged(self, before: str) -> None:
        """Wait for the page after the item of this lease."""
        self.wait(lambda: self.lease != before and self.script("return document.readyState") == "complete")

    def hosts(self) -> set[str]:
        """Every host the browser asked since the last call."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(urlsplit(message["params"]["request"]["url"]).netloc)
        return found


def chromium(program: str, driver: str) -> Any:
    """A headless Chromium without network of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = program
    flags = ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "disable-background-networking")
    for flag in (*flags, "no-first-run", "disable-component-update", "window-size=1366,768"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    made.set_page_load_timeout(240)
    made.set_script_timeout(240)
    return made
