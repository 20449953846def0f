"""A model behind an OpenAI-style HTTP API as a `Generator` (vLLM, llama.cpp, a cloud; our own server too).

    generator = UrlGenerator("http://127.0.0.1:8000/v1", "qwen", api_key_env="MY_KEY")

Nothing is sent before the first call, and only to that address: redirects are refused, and no proxy stands between us
and this machine. The key is read from the environment when it is needed and kept nowhere. What a server says in an
error may quote the prompt, so of its reply only the status and a code word reach a message.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from http.client import HTTPException, HTTPResponse
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from xinglin.records import Answer, InputError
from xinglin.rollout.generator import Decoding, Logprob, Prompt
from xinglin.run import seed_for

RETRIES = 3
BACKOFF = 0.5
"""Seconds before the first retry; doubled for each further one."""
LONGEST_WAIT = 30.0
LARGEST_REPLY = 64 << 20
REQUESTS_AT_ONCE = 8
ON_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
T = TypeVar("T")


class Fault(InputError):
    """A request that failed for once. `reason` is a short code without text; `wait` the seconds after which the same
    request may succeed, 0 where waiting does not help."""

    def __init__(self, message: str, reason: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.wait = wait


class ContextFull(InputError):
    """The prompt is longer than the server's model takes."""


# --- the wire --------------------------------------------------------------------------------------------------------


class Server:
    """POSTs JSON under one address; every failure is a one-line `InputError`."""

    def __init__(self, url: str, *, api_key_env: str | None = None, timeout: float = 60) -> None:
        self.url = _checked(url)
        self.api_key_env = api_key_env
        self.timeout = timeout
        self._headers()  # a missing key is said before any work is done
        self._opener = _opener(self.url)

    def post(self, path: str, body: dict[str, Any], *, retries: int = RETRIES) -> dict[str, Any]:
        """The server's JSON object."""
        return retrying(lambda: self._object(path, body), retries)

    def events(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        """The data of each server-sent event. Closing the iterator closes the connection, which stops the server."""
        with self._one_line(), retrying(lambda: self._open(path, body), RETRIES) as response:
            data: list[str] = []
            for line in _lines(response, self.url):
                if line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
                elif not line and data:
                    yield "\n".join(data)
                    data = []
            if data:
                yield "\n".join(data)

    def garbled(self, what: str) -> Fault:
        return Fault(f"{self.url}: {what}; check that an OpenAI-style API answers at this address", "garbled reply")

    def broken(self) -> Fault:
        return Fault(f"{self.url}: the reply broke off; see the server's log", "broken connection", BACKOFF)

    def _object(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._one_line(), self._open(path, body) as response:
            raw = response.read(LARGEST_REPLY)
            if response.length:  # fewer bytes than announced: http.client keeps silent about it
                raise self.broken()
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            raise self.garbled("the reply is not JSON") from None
        if not isinstance(found, dict):
            raise self.garbled("the reply is no JSON object")
        return found

    def _open(self, path: str, body: dict[str, Any]) -> HTTPResponse:
        request = Request(f"{self.url}/{path}", json.dumps(body).encode(), self._headers(), method="POST")
        with self._one_line():
            return self._opener.open(request, timeout=self.timeout)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "xinglin"}
        if self.api_key_env:
            key = os.environ.get(self.api_key_env, "").strip()
            # http.client quotes a header it refuses, and with it the key: check first
            if not re.fullmatch(r"[\x21-\x7e]+", key):
                found = "has blanks or other odd characters" if key else "is not set"
                raise InputError(f"environment variable {self.api_key_env} {found}; put the server's key into it")
            headers["Authorization"] = f"Bearer {key}"
        return headers

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Whatever the network raises, as one line that quotes nothing."""
        try:
            yield
        except HTTPError as error:
            with error:
                raise self._status(error) from None
        except HTTPException:
            raise self.broken() from None
        except OSError as error:  # URLError, timeouts and broken connections all are
            raise self._network(getattr(error, "reason", error)) from None

    def _network(self, reason: object) -> InputError:
        if isinstance(reason, TimeoutError):
            return Fault(f"{self.url}: no answer within {self.timeout:g} s; see the server's log", "timeout", BACKOFF)
        if isinstance(reason, ConnectionRefusedError):
            return InputError(f"{self.url}: connection refused; start the server or correct the address")
        if isinstance(reason, socket.gaierror):
            return InputError(f"{self.url}: the host is not known; correct the address")
        if isinstance(reason, ssl.SSLError):
            return InputError(f"{self.url}: no safe connection ({reason.reason}); check https and the certificate")
        if isinstance(reason, ConnectionError):
            return self.broken()
        return InputError(f"{self.url}: cannot be reached ({getattr(reason, 'strerror', None) or 'network error'})")

    def _status(self, error: HTTPError) -> InputError:
        code = error.code
        if code == 429 or code >= 500:
            after = error.headers.get("Retry-After", "")
            wait = max(BACKOFF, min(LONGEST_WAIT, float(after) if after.isdecimal() else 0.0))
            return Fault(f"{self.url}: the server is busy or failing (HTTP {code}); try later", f"HTTP {code}", wait)
        if code in (401, 403):
            key = f"is the one in {self.api_key_env} valid?" if self.api_key_env else "name its environment variable"
            return InputError(f"{self.url}: the server refuses us (HTTP {code}); it wants a key: {key}")
        if code == 404:
            return InputError(f"{self.url}: HTTP 404; the address (often it ends in /v1) or the model's name is wrong")
        if 300 <= code < 400:
            return InputError(f"{self.url}: redirects elsewhere (HTTP {code}); give the final address")
        word, is_length = _code_word(error)
        if code in (400, 413, 422) and is_length:
            return ContextFull(f"{self.url}: the prompt is longer than the model's context; shorten it")
        return InputError(f"{self.url}: HTTP {code}{word}; the server does not accept this request, see its log")


def retrying(attempt: Callable[[], T], retries: int) -> T:
    """The result of `attempt`, tried again after a growing pause where that may help."""
    for number in range(retries + 1):
        try:
            return attempt()
        except Fault as fault:
            if not fault.wait or number == retries:
                tries = f" (tried {number + 1} times)" if number else ""
                raise Fault(f"{fault}{tries}", fault.reason, fault.wait) from None
            time.sleep(min(LONGEST_WAIT, fault.wait * 2**number))
    raise AssertionError("unreachable")


class _NoRedirect(HTTPRedirectHandler):
    """urllib would carry the key along to wherever it is sent."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _opener(url: str) -> OpenerDirector:
    local = urlsplit(url).hostname in ON_THIS_MACHINE
    return build_opener(_NoRedirect, *([ProxyHandler({})] if local else []))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and re.fullmatch(r"[!-~]+", url)
    except ValueError:
        fine = False
    if "@" in url or "?" in url or "#" in url:
        raise InputError(
            "the url holds a user name or a query; give the bare address, and a key by environment variable"
        )
    if not fine:
        raise InputError(f"url {url!r} is no http address; give one such as http://127.0.0.1:8000/v1")
    return url.rstrip("/").removesuffix("/chat/completions")


def _code_word(error: HTTPError) -> tuple[str, bool]:
    """The reply's error code where it is a plain word, and whether the complaint is the prompt's length."""
    try:
        raw = error.read(1 << 16).decode("utf-8", "replace")
        body = json.loads(raw)
        inner = body.get("error") if isinstance(body.get("error"), dict) else body
        words = [str(inner.get(name)) for name in ("code", "type") if isinstance(inner.get(name), str)]
    except (OSError, HTTPException, ValueError, AttributeError):
        return "", False
    length = re.search(r"context.?(length|window|size)|max_model_len|too long", f"{words} {inner.get('message')}", re.I)
    plain = [word for word in words if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", word)]
    return (f" ({plain[0]})" if plain else ""), length is not None


def _lines(response: HTTPResponse, url: str) -> Iterator[str]:
    """Whole lines, decoded as such: a character may be cut between two packets, never between two lines."""
    while raw := response.readline(LARGEST_REPLY):
        try:
            yield raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise Fault(f"{url}: the stream is not UTF-8; check the server", "garbled reply") from None


# --- the model -------------------------------------------------------------------------------------------------------


class UrlGenerator:
    """`generate`, `stream` and, where the server allows, `logprobs` over HTTP."""

    def __init__(self, url: str, model: str, *, api_key_env: str | None = None, timeout: float = 60) -> None:
        self.name = model
        self.server = Server(url, api_key_env=api_key_env, timeout=timeout)

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, seed: int, num_answers: int = 1
    ) -> list[list[Answer]]:
        """See `Generator`. Whether the same seed gives the same answer is the server's to keep."""
        jobs = [(prompt, i, j) for i, prompt in enumerate(prompts) for j in range(num_answers)]

        def one(job: tuple[Prompt, int, int]) -> Answer:
            prompt, i, j = job
            reply = self.server.post("chat/completions", self._body(prompt, decoding, (seed, i, j)))
            text, finished = read_reply(self.server, reply)
            facts = {**asdict(decoding), "seed": seed, "finished": finished}
            tokens = usage(reply)["completion_tokens"]
            return Answer(text, self.name, {**facts, "tokens": tokens} if tokens else facts)

        answers = at_once(one, jobs)
        return [answers[i * num_answers : (i + 1) * num_answers] for i in range(len(prompts))]

    def stream(self, prompt: Prompt, decoding: Decoding, *, seed: int) -> Iterator[str]:
        """See `Generator`. An answer that breaks off is an error, never a shorter answer."""
        return whole_characters(self._pieces({**self._body(prompt, decoding, (seed, 0, 0)), "stream": True}))

    def logprobs(self, pairs: Sequence[tuple[str | Prompt, str]]) -> list[Logprob]:
        """See `Generator`; raw contexts only. As lm-eval does, the continuation's tokens are those of the whole text
        after as many as the context alone has."""
        if not all(isinstance(context, str) and context for context, _ in pairs):
            raise InputError(
                f"{self.server.url}: log-probabilities over HTTP need a raw text before the continuation: the chat "
                "template is the server's, and a first token has none; use a model folder, or answers instead"
            )
        texts = list(dict.fromkeys(str(context) for context, _ in pairs))
        lengths = dict(zip(texts, at_once(lambda text: len(self._echo(text)), texts), strict=True))
        return at_once(lambda pair: _summed(self._echo(str(pair[0]) + pair[1])[lengths[str(pair[0])] :]), list(pairs))

    def _body(self, prompt: Prompt, decoding: Decoding, place: tuple[int, int, int]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": message.role, "content": message.content} for message in prompt],
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": seed_for(*place) % 2**31,
        }
        return {**body, "top_k": decoding.top_k} if decoding.top_k else body  # strict servers do not know top_k

    def _pieces(self, body: dict[str, Any]) -> Iterator[str]:
        finished = False
        for data in self.server.events("chat/completions", body):
            if data.strip() == "[DONE]":
                return
            try:
                event = json.loads(data)
                choice = event["choices"][0] if event["choices"] else {}  # a last event may hold usage alone
                piece = str(choice.get("delta", {}).get("content") or "")
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                raise self.server.garbled("the stream holds an error or what is no chat event") from None
            finished = finished or choice.get("finish_reason") is not None
            if piece:
                yield piece
        if not finished:
            raise self.server.broken()

    def _echo(self, text: str) -> list[tuple[float | None, float]]:
        """(log-probability, that of the likeliest token) of each token of `text`."""
        # one new token is asked for, and dropped: not every server accepts none
        body = {"model": self.name, "prompt": text, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
        try:
            reply = self.server.post("completions", body)
            count = int(reply["usage"]["prompt_tokens"])
            found = reply["choices"][0]["logprobs"]
            tops = [max(top.values()) if top else 0.0 for top in found["top_logprobs"][:count]]
            rows = list(zip(found["token_logprobs"][:count], tops, strict=True))
        except (Fault, ContextFull):
            raise
        except InputError as error:
            raise InputError(f"{error}; it was asked for log-probabilities of a prompt (echo)") from None
        except (KeyError, TypeError, IndexError, ValueError, AttributeError):
            rows, count = [], 1
        if len(rows) != count or any(logprob is None for logprob, _ in rows[1:]):
            raise InputError(
                f"{self.server.url}: the server gives no log-probabilities of a prompt (/completions with echo and "
                "logprobs); use one that does, a model folder, or an evaluation that reads answers"
            )
        return rows


def _summed(rows: list[tuple[float | None, float]]) -> Logprob:
    values = [logprob for logprob, _ in rows if logprob is not None]
    return Logprob(sum(values), len(values), all(p is not None and p >= top - 1e-6 for p, top in rows))


def read_reply(server: Server, reply: dict[str, Any]) -> tuple[str, bool]:
    """The text of a chat reply, and whether it ended by itself."""
    try:
        choice = reply["choices"][0]
        text = choice["message"].get("content") or ""
        finished = choice.get("finish_reason") == "stop"
    except (KeyError, TypeError, IndexError, AttributeError):
        raise server.garbled("the reply is no chat completion") from None
    if not isinstance(text, str):
        raise server.garbled("the reply's content is no text")
    return "".join(whole_characters([text])), finished


def usage(reply: dict[str, Any]) -> dict[str, int]:
    """Tokens paid for, 0 where the server does not say."""
    found = reply.get("usage")
    counts = found if isinstance(found, dict) else {}
    return {name: int(counts.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}


def whole_characters(pieces: Iterable[str]) -> Iterator[str]:
    """The same text with no character in two pieces: JSON may cut one outside the BMP between its surrogates."""
    held = ""
    for piece in pieces:
        text, held = held + piece, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, held = text[:-1], text[-1]
        if text:
            yield _paired(text)
    if held:
        yield _paired(held)


def _paired(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def at_once(function: Callable[[Any], T], jobs: Sequence[Any]) -> list[T]:
    """Results in the order of the jobs, several requests at a time; after a failure no further one is begun."""
    pool = ThreadPoolExecutor(REQUESTS_AT_ONCE)
    try:
        return list(pool.map(function, jobs))
    finally:
        pool.shutdown(cancel_futures=True)
