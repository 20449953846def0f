"""`xinglin annotate serve`: verify the store, say where the page is, serve until stopped."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from xinglin.annotate.audit import verify
from xinglin.annotate.store import Store
from xinglin.records import InputError
from xinglin.run import say

LOCAL = ("127.0.0.1", "localhost", "[::1]")


def serve(
    store: Store,
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    names: Sequence[str] = (),
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve the page until interrupted. One process: its writers take turns.

    `names` are those a browser may call the server by; on this machine alone only this machine's. Raises `InputError`
    where FastAPI and uvicorn are not installed.
    """
    try:
        import uvicorn

        from xinglin.annotate.web.app import build_app
    except ModuleNotFoundError as error:
        raise InputError(f"the doctors' page needs {error.name}: pip install 'xinglin[annotate]'") from None
    listening = _listen(host, port)
    found = verify(store)
    for problem in found.problems[:20]:
        say(f"the store was changed: {problem}")
    if found.problems:
        say(f"{len(found.problems)} problems: the page is read-only; restore a backup, then start again")
    alone = _is_local(host)
    scheme = "https" if certificate else "http"
    say(f"the doctors' page: {scheme}://{host}:{port}/   ({found.votes} votes, log head {found.head[:12] or 'empty'})")
    if not alone and not certificate:
        say("reachable from other machines and not encrypted: passwords can be read on the way; see --certificate")
    config = uvicorn.Config(
        build_app(store, hosts=names or (LOCAL if alone else ()), problems=found.problems),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        limit_concurrency=500,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else is done. Raises `InputError` where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"cannot listen at {host} port {port} ({reason}); give another --port or --host") from None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
