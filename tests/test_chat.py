"""The terminal chat with a generator that repeats what it was asked."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xinglin import chat as module
from xinglin.chat import DISCLAIMER, SYNTHETIC, Dialogue, chat, converse, piped_lines, synthetic_label
from xinglin.records import InputError
from xinglin.rollout.generator import Decoding, Prompt
from xinglin.rollout.url import ContextFull

GREEDY = Decoding(temperature=0)


class Parrot:
    """Answers 答 + the question, in three pieces; remembers what it was asked and whether it was closed."""

    name = "parrot"

    def __init__(self, on_piece: Callable[[int], None] = lambda number: None, longest: int = 10**6) -> None:
        self.on_piece, self.longest = on_piece, longest
        self.prompts: list[list[tuple[str, str]]] = []
        self.seeds: list[int] = []
        self.closed = 0

    def stream(self, prompt: Prompt, decoding: Decoding, *, seed: int) -> Iterator[str]:
        if sum(len(m.content) for m in prompt) > self.longest:
            raise ContextFull("too long")
        self.prompts.append([(m.role, m.content) for m in prompt])
        self.seeds.append(seed)
        try:
            for number, piece in enumerate(("答", prompt[-1].content, "。")):
                self.on_piece(number)
                yield piece
        finally:
            self.closed += 1


def talk(
    parrot: Parrot, *lines: str, system: str = "", interactive: bool = True, fits: module.Fits = lambda prompt: True
) -> tuple[str, Dialogue]:
    out, dialogue = io.StringIO(), Dialogue(system)
    converse(
        parrot,
        lines,
        dialogue,
        GREEDY,
        seed=5,
        fits=fits,
        out=out,
        interactive=interactive,  # type: ignore[arg-type]
    )
    return out.getvalue(), dialogue


def test_turns_follow_one_another() -> None:
    parrot = Parrot()
    out, dialogue = talk(parrot, "头痛", "", "三天", system="你是医生")
    assert out == "答头痛。\n答三天。\n"
    assert parrot.prompts[1] == [
        ("system", "你是医生"),
        ("user", "头痛"),
        ("assistant", "答头痛。"),
        ("user", "三天"),
    ]
    assert parrot.seeds == [5, 6] and parrot.closed == 2
    assert dialogue.turns == [("头痛", "答头痛。"), ("三天", "答三天。")]


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    parrot = Parrot()
    lines = ("一", "二", "/undo", "三", "/clear", "/undo", "/system 短答", "四", "/system", "五", "/exit", "六")
    out, dialogue = talk(parrot, *lines)
    assert [[text for _, text in prompt] for prompt in parrot.prompts] == [
        ["一"],
        ["一", "答一。", "二"],
        ["一", "答一。", "三"],
        ["短答", "四"],
        ["四", "答四。", "五"],
    ]
    assert "没有可以撤回" in capsys.readouterr().err and "六" not in out


def test_an_unknown_command_is_said_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    parrot = Parrot()
    talk(parrot, "/quit")
    assert parrot.prompts == [] and "/exit" in capsys.readouterr().err


def test_the_oldest_turns_go_whole_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    parrot = Parrot()
    out, dialogue = talk(
        parrot, "一一", "二二", "三三", system="统", fits=lambda p: sum(len(m.content) for m in p) <= 9
    )
    # 统 + 一一 + 答一一。 + 二二 = 9 fits; with 答二二。 + 三三 it is 15, without the first exchange 9
    assert [text for _, text in parrot.prompts[2]] == ["统", "二二", "答二二。", "三三"]
    assert [role for role, _ in parrot.prompts[2]] == ["system", "user", "assistant", "user"]
    assert "最早的 1 轮" in capsys.readouterr().err
    assert [asked for asked, _ in dialogue.turns] == ["二二", "三三"]


def test_a_server_says_by_itself_that_the_context_is_full() -> None:
    parrot = Parrot(longest=8)
    _, dialogue = talk(parrot, "一一", "二二", "三三")
    assert [text for _, text in parrot.prompts[-1]] == ["二二", "答二二。", "三三"]


def test_a_question_that_never_fits_leaves_the_dialogue_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    out, dialogue = talk(Parrot(longest=8), "一", "长" * 99, "二")
    assert [asked for asked, _ in dialogue.turns] == ["一", "二"]
    assert "shorten it" in capsys.readouterr().err
    with pytest.raises(InputError, match="shorten it"):
        talk(Parrot(longest=8), "长" * 99, "二", interactive=False)


def interrupt_at(number: int) -> Callable[[int], None]:
    def on_piece(piece: int) -> None:
        if piece == number:
            raise KeyboardInterrupt

    return on_piece


def test_ctrl_c_stops_the_answer_and_keeps_what_was_shown(capsys: pytest.CaptureFixture[str]) -> None:
    parrot = Parrot(interrupt_at(2))
    out, dialogue = talk(parrot, "头痛", "三天")
    assert out == "答头痛\n答三天\n" and dialogue.turns[0] == ("头痛", "答头痛")
    assert "已停止" in capsys.readouterr().err and parrot.closed == 2


def test_ctrl_c_before_the_first_piece_leaves_no_turn() -> None:
    _, dialogue = talk(Parrot(interrupt_at(0)), "头痛")
    assert dialogue.turns == []


def test_ctrl_c_ends_a_pipe() -> None:
    with pytest.raises(KeyboardInterrupt):
        talk(Parrot(interrupt_at(1)), "一", "二", interactive=False)


def use(monkeypatch: pytest.MonkeyPatch, parrot: Parrot, label: str | None = None) -> None:
    monkeypatch.setattr(module, "_open", lambda *args: (parrot, lambda prompt: True, label))


def test_once_answers_and_labels_go_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Parrot(), SYNTHETIC)
    chat("folder", once="头痛")
    seen = capsys.readouterr()
    assert seen.out == "答头痛。\n"
    assert seen.err.count(DISCLAIMER) == 1 and seen.err.count(SYNTHETIC) == 1


def test_a_pipe_gives_one_answer_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(monkeypatch, Parrot())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeff头痛\r\n\n三天".encode())))
    chat("folder")
    seen = capsys.readouterr()
    assert seen.out == "答头痛。\n答三天。\n" and seen.err == DISCLAIMER + "\n"


def test_a_line_that_is_not_utf8_is_named() -> None:
    lines = piped_lines(io.BytesIO("头痛\n".encode() + "三天\n".encode("gbk")))
    assert next(lines) == "头痛"
    with pytest.raises(InputError, match="line 2: byte 0 is not UTF-8"):
        next(lines)


def test_typed_lines_end_with_ctrl_d_and_survive_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: list[str | type[BaseException]] = ["头\udce5痛", KeyboardInterrupt, "三天", EOFError]

    def fake_input(prompt: str) -> str:
        item = typed.pop(0)
        if isinstance(item, str):
            return item
        raise item

    monkeypatch.setattr("builtins.input", fake_input)
    assert list(module.typed_lines()) == ["头?痛", "三天"]
    assert "Ctrl-D" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from xinglin.models.load import save_model
    from xinglin.models.template import template_named
    from xinglin.models.tiny import build_model, train_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = train_tokenizer(["头痛三天怎么办，注意休息。"] * 3, 300, "chatml")
    model = build_model("llama", len(tokenizer), hidden_size=32, num_layers=2, num_heads=2, max_seq_len=96, seed=0)
    save_model(folder, model, tokenizer, template_named("chatml"))
    return folder


def test_a_small_model_is_labelled_synthetic_and_so_is_one_that_says_so(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xinglin.models.load import load_base, write_sidecar

    assert module.num_parameters(tiny) == sum(p.numel() for p in load_base(tiny, nf4=False).parameters())
    assert synthetic_label(tiny) == SYNTHETIC
    monkeypatch.setattr(module, "SMALLEST_REAL", 0)
    assert synthetic_label(tiny) is None
    write_sidecar(tiny, synthetic=True)
    assert synthetic_label(tiny) == SYNTHETIC


def test_a_real_folder_answers_and_forgets_when_full(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decoding = Decoding(max_new_tokens=8, temperature=1.0)
    chat(tiny, decoding=decoding, seed=1, once="头痛三天怎么办")
    first = capsys.readouterr()
    chat(tiny, decoding=decoding, seed=1, once="头痛三天怎么办")
    assert capsys.readouterr().out == first.out and SYNTHETIC in first.err
    generator, fits, _ = module._open(tiny, decoding, "default", None)
    out, dialogue = io.StringIO(), Dialogue()
    lines = ["头痛三天怎么办"] * 12
    converse(generator, lines, dialogue, decoding, seed=1, fits=fits, out=out, interactive=False)
    assert "轮对话不再参与回答" in capsys.readouterr().err and 0 < len(dialogue.turns) < 12
    with pytest.raises(InputError, match="max_new_tokens is 96, the context of"):
        chat(tiny, decoding=Decoding(max_new_tokens=96), once="头痛")


def test_an_address_is_asked_over_http() -> None:
    with pytest.raises(InputError, match="connection refused"):
        chat("http://127.0.0.1:1/v1", once="头痛")
