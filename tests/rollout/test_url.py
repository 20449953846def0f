"""A model over HTTP, against a server of our own: what arrives, what is tried again, what is said when it fails."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from stub import Reply, chat, events, object_reply, serve

from xinglin.records import InputError, Message
from xinglin.rollout import url as module
from xinglin.rollout.generator import Decoding
from xinglin.rollout.url import ContextFull, Fault, UrlGenerator

ASK = (Message("user", "头痛怎么办"),)
SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", 0.001)


def test_answers_stand_in_the_order_of_their_prompts_with_their_settings() -> None:
    prompts = [(Message("user", f"问{i}"),) for i in range(20)]
    with serve(lambda n, body: chat("答" + body["messages"][-1]["content"])) as stub:
        answers = UrlGenerator(stub.url, "m").generate(prompts, Decoding(9, 0.5, 0.8), seed=3, num_answers=2)
    assert [[a.text for a in group] for group in answers] == [[f"答问{i}"] * 2 for i in range(20)]
    facts = {"max_new_tokens": 9, "temperature": 0.5, "top_p": 0.8, "top_k": 0, "seed": 3, "finished": True}
    assert answers[0][0].decoding == {**facts, "tokens": 7}
    assert answers[0][0].source == "m" and set(stub.paths) == {"/v1/chat/completions"}
    assert len({body["seed"] for body in stub.asked}) == 40, "each answer has a seed of its own"
    assert all("top_k" not in body for body in stub.asked), "strict servers refuse it"


def test_the_same_seed_asks_the_same() -> None:
    with serve(lambda n, body: chat("好", "length")) as stub:
        first = UrlGenerator(stub.url, "m").generate([ASK], Decoding(top_k=5), seed=1)
        UrlGenerator(stub.url, "m").generate([ASK], Decoding(top_k=5), seed=1)
    assert stub.asked[0] == stub.asked[1] and stub.asked[0]["top_k"] == 5
    assert first[0][0].decoding["finished"] is False


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1000])
def test_a_stream_cut_anywhere_gives_whole_characters(size: int) -> None:
    raw = events("多喝水", "，", "观察😀", "三天")
    parts = [raw[i : i + size] for i in range(0, len(raw), size)]
    with serve(lambda n, body: Reply(parts)) as stub:
        pieces = list(UrlGenerator(stub.url, "m").stream(ASK, Decoding(), seed=0))
    assert pieces == ["多喝水", "，", "观察😀", "三天"]
    assert stub.asked[0]["stream"] is True


def test_a_character_cut_between_two_deltas_is_put_together() -> None:
    body = r'data: {"choices":[{"delta":{"content":"好\ud83d"}}]}' + "\n\n"
    body += r'data: {"choices":[{"delta":{"content":"\ude00吧"},"finish_reason":"stop"}]}' + "\n\n"
    with serve(lambda n, _: Reply([body.encode()])) as stub:
        assert list(UrlGenerator(stub.url, "m").stream(ASK, Decoding(), seed=0)) == ["好", "😀吧"]


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    with serve(lambda n, _: Reply([events("多喝", done=False, finish=False)])) as stub:
        with pytest.raises(InputError, match="broke off"):
            list(UrlGenerator(stub.url, "m").stream(ASK, Decoding(), seed=0))


def test_a_stream_ends_with_its_finish_reason_where_done_is_not_sent() -> None:
    with serve(lambda n, _: Reply([events("多喝", done=False)])) as stub:
        assert list(UrlGenerator(stub.url, "m").stream(ASK, Decoding(), seed=0)) == ["多喝"]


def test_an_error_inside_a_stream_is_said_without_its_text() -> None:
    with serve(lambda n, _: Reply(['data: {"error": {"message": "头痛怎么办"}}\n\n'.encode()])) as stub:
        with pytest.raises(InputError) as caught:
            list(UrlGenerator(stub.url, "m").stream(ASK, Decoding(), seed=0))
    assert "头痛" not in str(caught.value)


def test_closing_a_stream_closes_the_connection() -> None:
    parts = [events("水", done=False, finish=False)] * 500
    with serve(lambda n, _: Reply(parts)) as stub:
        pieces = UrlGenerator(stub.url, "m").stream(ASK, Decoding(), seed=0)
        assert isinstance(pieces, Iterator) and next(pieces) == "水"
        pieces.close()  # type: ignore[attr-defined]
        for _ in range(300):
            if stub.closed_early:
                break
            module.time.sleep(0.01)
    assert stub.closed_early == 1


def test_429_then_success() -> None:
    with serve(lambda n, _: Reply([b"busy"], 429) if n < 2 else chat("好")) as stub:
        assert UrlGenerator(stub.url, "m").generate([ASK], Decoding(), seed=0)[0][0].text == "好"
    assert len(stub.asked) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_busy_is_asked_four_times_and_no_more(status: int) -> None:
    with serve(lambda n, _: Reply([b""], status)) as stub:
        with pytest.raises(Fault, match=rf"HTTP {status}.*tried 4 times") as caught:
            UrlGenerator(stub.url, "m").generate([ASK], Decoding(), seed=0)
    assert len(stub.asked) == 4 and caught.value.reason == f"HTTP {status}"


def test_the_pause_doubles_and_respects_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    with pytest.raises(Fault):
        module.retrying(lambda: (_ for _ in ()).throw(Fault("x", "x", 0.5)), 3)
    assert pauses == [0.5, 1.0, 2.0]
    monkeypatch.undo()
    monkeypatch.setattr(module, "BACKOFF", 0.001)
    with serve(lambda n, _: Reply([b""], 429, {"Retry-After": "7"})) as stub:
        with pytest.raises(Fault) as caught:
            UrlGenerator(stub.url, "m").server.post("x", {}, retries=0)
    assert caught.value.wait == 7


def test_a_timeout_is_tried_again() -> None:
    def script(number: int, _: object) -> Reply:
        module.time.sleep(0.4 if number == 0 else 0)
        return chat("好")

    with serve(script) as stub:
        generator = UrlGenerator(stub.url, "m", timeout=0.15)
        assert generator.generate([ASK], Decoding(), seed=0)[0][0].text == "好"
    assert len(stub.asked) == 2


def test_a_reply_shorter_than_announced_is_tried_again() -> None:
    whole = chat("好").parts[0]
    with serve(lambda n, _: Reply([whole[:20]], length=len(whole)) if n == 0 else chat("好")) as stub:
        assert UrlGenerator(stub.url, "m").generate([ASK], Decoding(), seed=0)[0][0].text == "好"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply([b"<html>"]), "not JSON"),
        (Reply(["头痛怎么办".encode()]), "not JSON"),
        (object_reply([]), "no JSON object"),
        (object_reply({"choices": []}), "no chat completion"),
        (object_reply({"error": "no"}, 401), "HTTP 401"),
        (object_reply({"error": "no"}, 404), "HTTP 404"),
        (object_reply({"error": {"message": "头痛怎么办", "code": "bad_value"}}, 400), r"HTTP 400 \(bad_value\)"),
        (object_reply({"error": {"message": "头痛怎么办", "code": "头痛 怎么办"}}, 422), "HTTP 422;"),
        (Reply([b""], 302, {"Location": "http://elsewhere.invalid/"}), "redirects"),
    ],
)
def test_failures_are_one_line_and_quote_no_text(reply: Reply, message: str) -> None:
    with serve(lambda n, _: reply) as stub:
        with pytest.raises(InputError, match=message) as caught:
            UrlGenerator(stub.url, "m").generate([ASK], Decoding(), seed=0)
    assert "\n" not in str(caught.value) and "头痛" not in str(caught.value)
    assert len(stub.asked) == 1, "what waiting cannot mend is not tried again"


def test_a_prompt_longer_than_the_context_has_its_own_error() -> None:
    said = {"error": {"message": "This model's maximum context length is 2048 tokens", "type": "BadRequestError"}}
    with serve(lambda n, _: object_reply(said, 400)) as stub:
        with pytest.raises(ContextFull):
            UrlGenerator(stub.url, "m").generate([ASK], Decoding(), seed=0)


def test_connection_refused_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="connection refused; start the server"):
        UrlGenerator(f"http://127.0.0.1:{port}/v1", "m").generate([ASK], Decoding(), seed=0)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "file:///etc/passwd", "http://", "http://a b/", "http://h:99999"]
)
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="no http address"):
        UrlGenerator(url, "m")


@pytest.mark.parametrize("url", ["http://me:sk-1@h/v1", "http://h/v1?key=sk-1"])
def test_a_key_in_the_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError) as caught:
        UrlGenerator(url, "m")
    assert "sk-1" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XL_KEY", raising=False)
    with pytest.raises(InputError, match="XL_KEY is not set"):
        UrlGenerator("http://127.0.0.1:1/v1", "m", api_key_env="XL_KEY")
    monkeypatch.setenv("XL_KEY", SECRET)
    with serve(lambda n, _: Reply([b""], 401)) as stub:
        generator = UrlGenerator(stub.url, "m", api_key_env="XL_KEY")
        with pytest.raises(InputError, match="XL_KEY") as caught:
            generator.generate([ASK], Decoding(), seed=0)
    assert stub.keys == [f"Bearer {SECRET}"]
    assert SECRET not in f"{caught.value} {vars(generator)} {vars(generator.server)}"
    monkeypatch.setenv("XL_KEY", f"{SECRET}\r\nX: 1")
    with pytest.raises(InputError, match="odd characters") as caught:
        UrlGenerator(stub.url, "m", api_key_env="XL_KEY")
    assert SECRET not in str(caught.value)


def test_no_proxy_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with serve(lambda n, _: chat("好")) as stub:
        assert UrlGenerator(stub.url, "m").generate([ASK], Decoding(), seed=0)[0][0].text == "好"


# --- log-probabilities -----------------------------------------------------------------------------------------------


def echo(_: int, body: dict[str, object]) -> Reply:
    """One token a character: the n-th has log-probability -n; the likeliest is it, except after "重"."""
    text = str(body["prompt"])
    tokens = [*text, "新"]
    logprobs = [None, *(-float(n) for n in range(1, len(tokens)))]
    tops: list[object] = [None]
    for n, token in enumerate(tokens[1:], 1):
        tops.append({"别": -0.5, token: -float(n)} if tokens[n - 1] == "重" else {token: -float(n)})
    found = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops}
    return object_reply({"choices": [{"logprobs": found}], "usage": {"prompt_tokens": len(text)}})


def test_logprobs_are_summed_over_the_continuation_alone() -> None:
    with serve(echo) as stub:
        found = UrlGenerator(stub.url, "m").logprobs([("答案：", "A"), ("答案：", "AC"), ("病重", "了")])
    assert [(p.total, p.num_tokens, p.greedy) for p in found] == [(-3, 1, True), (-7, 2, True), (-2, 1, False)]
    assert sorted(body["prompt"] for body in stub.asked) == sorted(["答案：", "病重", "答案：A", "答案：AC", "病重了"])
    assert stub.asked[0]["echo"] is True and set(stub.paths) == {"/v1/completions"}


@pytest.mark.parametrize(
    "reply",
    [
        chat("好"),
        object_reply({"choices": [{"text": "x", "logprobs": None}], "usage": {"prompt_tokens": 3}}),
        object_reply(
            {
                "choices": [{"logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{"x": -1.0}]}}],
                "usage": {"prompt_tokens": 3},
            }
        ),
        object_reply(
            {"choices": [{"logprobs": {"token_logprobs": [None, -1.0], "top_logprobs": [None, {"x": -1.0}]}}]}
        ),
    ],
)
def test_a_server_without_echo_is_said_clearly(reply: Reply) -> None:
    with serve(lambda n, _: reply) as stub:
        with pytest.raises(InputError, match="no log-probabilities of a prompt"):
            UrlGenerator(stub.url, "m").logprobs([("答案：", "A")])


def test_a_server_that_refuses_echo_is_said_clearly() -> None:
    with serve(lambda n, _: object_reply({"error": {"code": "unsupported"}}, 400)) as stub:
        with pytest.raises(InputError, match=r"HTTP 400 \(unsupported\).*log-probabilities"):
            UrlGenerator(stub.url, "m").logprobs([("答案：", "A")])


@pytest.mark.parametrize("context", ["", ASK])
def test_what_http_cannot_score_is_refused(context: object) -> None:
    with pytest.raises(InputError, match="raw text before"):
        UrlGenerator("http://127.0.0.1:1/v1", "m").logprobs([(context, "A")])  # type: ignore[list-item]


def test_building_a_generator_sends_nothing() -> None:
    with serve(lambda n, _: chat("好")) as stub:
        UrlGenerator(stub.url, "m")
    assert stub.asked == [] and json.dumps(stub.paths) == "[]"
