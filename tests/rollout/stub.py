"""A small OpenAI-style server on this machine: each test says what it replies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """`parts` are sent one by one, with a pause: what a slow network does to a stream."""

    parts: list[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # announced; default: the true one


@dataclass
class Stub:
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    closed_early: int = 0


@contextmanager
def serve(script: Callable[[int, dict[str, Any]], Reply]) -> Iterator[Stub]:
    """`script(number of the request, its body)` is the reply."""
    stub = Stub()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(stub.asked)
                stub.asked.append(body)
                stub.paths.append(self.path)
                stub.keys.append(self.headers.get("Authorization"))
            reply = script(number, body)
            self.send_response(reply.status)
            length = sum(map(len, reply.parts)) if reply.length is None else reply.length
            for name, value in {"Content-Length": str(length), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for part in reply.parts:
                    self.wfile.write(part)
                    self.wfile.flush()
                    time.sleep(0.002 if len(reply.parts) > 1 else 0)
            except ConnectionError:
                stub.closed_early += 1

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()


def chat(text: str, finish: str = "stop") -> Reply:
    message = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return object_reply({"choices": [message], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})


def object_reply(body: Any, status: int = 200) -> Reply:
    return Reply([json.dumps(body, ensure_ascii=False).encode()], status)


def events(*deltas: str, done: bool = True, finish: bool = True) -> bytes:
    """The bytes of a stream, with a comment line as servers send it to keep a connection open."""
    rows = [{"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}]}]
    rows += [{"choices": [{"delta": {"content": delta}, "finish_reason": None}]} for delta in deltas]
    rows += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}] if finish else []
    lines = [": ping\n\n", *(f"data: {json.dumps(row, ensure_ascii=False)}\r\n\r\n" for row in rows)]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()
