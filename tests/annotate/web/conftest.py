"""A store on a file, the application in this process, the application as a process, a browser where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the doctors' page needs FastAPI: pip install 'xinglin[annotate]'")
import httpx  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402
from web_pages import Browser, Page, Server, chromium, serving, session  # noqa: E402

from xinglin.annotate.store import Store, open_store  # noqa: E402
from xinglin.annotate.web.app import build_app  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "annotate.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    opened = open_store(database)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def browse(store: Store) -> Iterator[Callable[[str], Page]]:
    """Open a page of the application in this process, signed in under a name ("" for nobody)."""
    app = build_app(store)
    opened: list[TestClient] = []

    def page(name: str) -> Page:
        opened.append(TestClient(app, base_url="http://ward.test", follow_redirects=False))
        made = Page(opened[-1], name)
        return made.resume(session(store, name)) if name else made

    yield page
    for client in opened:
        client.close()


@pytest.fixture
def server(database: Path, store: Store) -> Iterator[Server]:
    with serving(database) as running:
        yield running


@pytest.fixture
def client(server: Server, store: Store) -> Iterator[Callable[[str], Page]]:
    """A client of the server process, signed in under a name."""
    opened: list[httpx.Client] = []

    def page(name: str) -> Page:
        opened.append(httpx.Client(base_url=server.address, timeout=60))
        return Page(opened[-1], name).resume(session(store, name))

    yield page
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def driver() -> Iterator[object]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium or no chromedriver here: apt-get install chromium chromium-driver")
    made = chromium(CHROMIUM, DRIVER)
    yield made
    made.quit()


@pytest.fixture
def browser(driver: object) -> Browser:
    return Browser(driver)
