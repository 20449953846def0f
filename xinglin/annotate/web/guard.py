"""What stands before every request: size and pace of the body, headers that keep a page to itself, no crash shown.

Plain ASGI. The body is read here, at most 1 MiB within 30 s, before any work is done for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MOST_BYTES, MOST_SECONDS = 1 << 20, 30.0
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # no-referrer would make a form's Origin "null"
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
logger = logging.getLogger("xinglin.annotate")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """The app behind the guard. `refusal(scope, status, code)` is the answer in the language of the page."""

    def __init__(self, app: App, refusal: Callable[[Scope, int, str], App]) -> None:
        self.app = app
        self.refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        marked = _with_headers(send)
        try:
            body = await asyncio.wait_for(_body(scope, receive), MOST_SECONDS)
        except TimeoutError:
            return await self.refusal(scope, 408, "slow")(scope, receive, marked)
        if body is None:
            return await self.refusal(scope, 413, "size")(scope, receive, marked)
        try:
            await self.app(scope, _replayed(body, receive), marked)
        except Exception as error:
            # Where it happened, never with what: values may be record text.
            frames = "".join(traceback.format_tb(error.__traceback__)[-4:])
            logger.error("internal fault at %s: %s\n%s", scope["path"], type(error).__name__, frames)
            await self.refusal(scope, 500, "internal")(scope, receive, marked)


def _with_headers(send: Send) -> Send:
    async def marked(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            more = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in given]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return marked


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body, or None where it is too large."""
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    if not stated.isdigit() or int(stated) > MOST_BYTES:
        return None
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MOST_BYTES:
            return None
        more = message.get("more_body", False)
    return b"".join(chunks)


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return replay


class Attempts:
    """Failures of each address in the last minutes, beside the store's own count for each name."""

    def __init__(self, most: int = 60, seconds: float = 300.0) -> None:
        self.most, self.seconds = most, seconds
        self.failed: dict[str, deque[float]] = defaultdict(deque)

    def wait(self, address: str) -> int:
        """Seconds this address has to wait; 0 where it need not."""
        now = time.monotonic()
        failed = self.failed[address]
        while failed and failed[0] < now - self.seconds:
            failed.popleft()
        return int(failed[0] + self.seconds - now) + 1 if len(failed) >= self.most else 0

    def fail(self, address: str) -> None:
        if len(self.failed) > 10_000:  # addresses nobody comes from any more
            self.failed.clear()
        self.failed[address].append(time.monotonic())
