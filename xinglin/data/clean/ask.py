"""A chat model as a source of verdicts or texts, asked once for each piece of material and remembered on disk.

    asker = Asker(chat, model="qwen", prompt=PROMPT, version="check-1", cache=folder / "asked.jsonl")
    found = asker.ask(material, read)            what `read` made of the reply; None when no reply could be read

`chat(messages, attempt)` is handed down: it speaks to the server and returns a `Reply`, or None when the server failed
for once (it has had its own retries by then). A mistake of the user (a wrong address, a key refused) is raised by it
and ends the run. The cache holds a hash of model, prompt and material beside the reply, never the material; one line is
written at a time, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from xinglin.records import InputError

TRIES = 3
AT_ONCE = 4
BLOCK = 64
T = TypeVar("T")
R = TypeVar("R")


class Reply(NamedTuple):
    """`finished` is False where the server cut the text at its token limit."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = True


Chat = Callable[[list[dict[str, str]], int], Reply | None]


class Unreadable(ValueError):
    """A reply that is not what was asked for; asked again."""


class Asker:
    """Usable from several threads. `cost` counts what was paid, in this run and in those the cache remembers."""

    def __init__(self, chat: Chat, *, model: str, prompt: str, version: str, cache: Path | None = None) -> None:
        self.name = f"{model}:{version}:{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"
        self._chat = chat
        self._prompt = prompt
        self._cache = cache
        self._known = _read_cache(cache) if cache else {}
        self._counts = Counter(calls=0, cached=0, ungraded=0, prompt_tokens=0, completion_tokens=0)
        self._lock = threading.Lock()

    def ask(self, material: dict[str, Any], read: Callable[[str], T]) -> T | None:
        """`read(reply)`, tried `TRIES` times; it raises `Unreadable` for what it cannot take."""
        content = json.dumps(material, ensure_ascii=False)  # one JSON string: material cannot close its own quotation
        key = hashlib.sha256(f"{self.name}\x1f{content}".encode()).hexdigest()
        if (known := self._known.get(key)) is not None:
            with self._lock:
                self._counts["cached"] += 1
            return read(known)
        messages = [{"role": "system", "content": self._prompt}, {"role": "user", "content": content}]
        for attempt in range(TRIES):
            reply = self._paid(messages, attempt)
            if reply is None or not reply.finished:
                continue
            try:
                found = read(reply.text)
            except Unreadable:
                continue
            self._remember(key, reply)
            return found
        with self._lock:
            self._counts["ungraded"] += 1
        return None

    def cost(self, price_in: float = 0.0, price_out: float = 0.0) -> dict[str, Any]:
        """Counts, and the cost of this run's tokens at prices for a million of them."""
        with self._lock:
            counts = dict(self._counts)
        paid = (counts["prompt_tokens"] * price_in + counts["completion_tokens"] * price_out) / 1e6
        return {"asked": self.name, **counts, "cost": round(paid, 6)}

    def _paid(self, messages: list[dict[str, str]], attempt: int) -> Reply | None:
        reply = self._chat(messages, attempt)
        with self._lock:
            self._counts["calls"] += 1
            if reply:
                self._counts.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        return reply

    def _remember(self, key: str, reply: Reply) -> None:
        with self._lock:
            self._known[key] = reply.text
            if self._cache:
                self._cache.parent.mkdir(parents=True, exist_ok=True)
                with self._cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "reply": reply.text}, ensure_ascii=False) + "\n")


def one_object(reply: str, keys: set[str]) -> dict[str, Any]:
    """The JSON object that a reply is, in or out of a code fence, after a closed <think> block. Raises `Unreadable`."""
    bare = reply.rpartition("</think>")[2].strip()
    bare = bare.removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        found = json.loads(bare)
    except (ValueError, RecursionError):
        raise Unreadable("not JSON") from None
    if not isinstance(found, dict) or set(found) != keys:
        raise Unreadable("not the object asked for")
    return found


def in_order(function: Callable[[T], R], items: Iterable[T], at_once: int = AT_ONCE) -> Iterator[R]:
    """Results in the order of the items, a few requests at a time, a bounded number of items in memory."""
    rest = iter(items)
    with ThreadPoolExecutor(at_once) as pool:
        try:
            while block := list(islice(rest, BLOCK)):
                yield from pool.map(function, block)
        finally:
            pool.shutdown(cancel_futures=True)


def _read_cache(path: Path) -> dict[str, str]:
    """Replies by key. A last line that was cut off by a kill is taken off the file."""
    if not path.is_file():
        return {}
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    known = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            known[str(row["key"])] = str(row["reply"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}:{number}: no line of a cache of replies; delete the file to ask again") from None
    return known
