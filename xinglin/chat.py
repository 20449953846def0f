"""Talk to a model in the terminal, through the same `Generator` that is measured and served.

    xinglin chat runs/demo/03-sft/model                  # a person: /clear /undo /system TEXT /exit, Ctrl-C stops
    xinglin chat http://127.0.0.1:8000/v1 --model qwen
    xinglin chat MODEL < questions.txt                   # a pipe: one line is one user turn

Answers go to stdout; notices, labels and prompts go to stderr, so that a pipe carries answers alone. Nothing said is
written to a log or a file.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from xinglin.records import InputError, Message
from xinglin.rollout.generator import Decoding, Generator, Prompt
from xinglin.rollout.url import ContextFull, UrlGenerator
from xinglin.run import say

DISCLAIMER = "AI 生成，仅供参考，不能代替医生"
SYNTHETIC = "SYNTHETIC: tiny model trained on a teaching ward"
SMALLEST_REAL = 50_000_000
"""Parameters below which no model is taken for a medical one."""
COMMANDS = "/clear 清空对话  /undo 撤回上一轮  /system 内容 设定系统提示（不带内容则去掉）  /exit 退出"
Fits = Callable[[Prompt], bool]


@dataclass(slots=True)
class Dialogue:
    """What has been said. `turns` holds whole exchanges: a question and its answer."""

    system: str = ""
    turns: list[tuple[str, str]] = field(default_factory=list)

    def prompt(self, question: str) -> Prompt:
        head = [Message("system", self.system)] if self.system else []
        past = [m for asked, said in self.turns for m in (Message("user", asked), Message("assistant", said))]
        return (*head, *past, Message("user", question))


def chat(
    model_folder_or_url: str | Path,
    *,
    system: str = "",
    decoding: Decoding | None = None,
    seed: int = 0,
    once: str | None = None,
    model: str = "default",
    api_key_env: str | None = None,
) -> None:
    """Talk until /exit, Ctrl-D or the end of the pipe; with `once`, answer that and return.

    `model` and `api_key_env` are for an address: the model's name there, and where its key is.
    """
    decoding = decoding or Decoding(max_new_tokens=256, temperature=0.7, top_p=0.9)
    generator, fits, label = _open(model_folder_or_url, decoding, model, api_key_env)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Chinese shows marks, not a traceback
    say(f"{label}\n{DISCLAIMER}" if label else DISCLAIMER)
    if once is not None:
        answer(generator, Dialogue(system), _clean(once), decoding, seed=seed, fits=fits, out=sys.stdout)
        return
    interactive = sys.stdin.isatty()
    if interactive:
        say(COMMANDS)
    lines = typed_lines() if interactive else piped_lines(sys.stdin.buffer)
    dialogue = Dialogue(system)
    converse(generator, lines, dialogue, decoding, seed=seed, fits=fits, out=sys.stdout, interactive=interactive)


def converse(
    generator: Generator,
    lines: Iterable[str],
    dialogue: Dialogue,
    decoding: Decoding,
    *,
    seed: int,
    fits: Fits,
    out: TextIO,
    interactive: bool,
) -> None:
    """Answer line after line; lines that begin with / are commands. A person goes on after Ctrl-C or an error, a pipe
    ends there: its answers would no longer stand beside their questions."""
    for number, line in enumerate(line for line in lines if line.strip()):
        if line.startswith("/"):
            if not obey(dialogue, line):
                return
            continue
        try:
            finished = answer(generator, dialogue, line, decoding, seed=seed + number, fits=fits, out=out)
        except InputError as error:
            if not interactive:
                raise
            say(str(error))
        else:
            if not (finished or interactive):
                raise KeyboardInterrupt


def obey(dialogue: Dialogue, line: str) -> bool:
    """Carry out a command; False ends the conversation."""
    command, _, rest = line.strip().partition(" ")
    if command == "/exit":
        return False
    if command == "/clear":
        dialogue.turns.clear()
        say("对话已清空")
    elif command == "/undo":
        say("上一轮已撤回" if dialogue.turns else "没有可以撤回的对话")
        del dialogue.turns[-1:]
    elif command == "/system":
        dialogue.system = rest.strip()
        say("系统提示已设定" if dialogue.system else "系统提示已去掉")
    else:
        say(f"没有这个命令。{COMMANDS}")
    return True


def answer(
    generator: Generator, dialogue: Dialogue, question: str, decoding: Decoding, *, seed: int, fits: Fits, out: TextIO
) -> bool:
    """Stream one answer and remember the exchange as it was shown; False if the person stopped it."""
    said: list[str] = []
    stopped = False
    try:
        for piece in _stream(generator, dialogue, question, decoding, seed, fits):
            said.append(piece)
            out.write(piece)
            out.flush()
    except KeyboardInterrupt:
        stopped = True
    finally:
        out.write("\n")
        out.flush()
    if stopped or not said:
        say("（已停止）" if stopped else "（没有回答）")
    if said:
        dialogue.turns.append((question, "".join(said)))
    return not stopped


def _stream(
    generator: Generator, dialogue: Dialogue, question: str, decoding: Decoding, seed: int, fits: Fits
) -> Iterator[str]:
    """The answer's pieces. The oldest exchanges go, whole, until the prompt fits; a server says that by itself."""
    for forgotten in range(len(dialogue.turns) + 1):
        prompt = Dialogue(dialogue.system, dialogue.turns[forgotten:]).prompt(question)
        if not fits(prompt):
            continue
        pieces: Any = generator.stream(prompt, decoding, seed=seed)
        try:
            first = next(pieces, "")
            if forgotten:
                del dialogue.turns[:forgotten]
                say(f"（上下文已满，最早的 {forgotten} 轮对话不再参与回答）")
            if first:
                yield first
            yield from pieces
            return
        except ContextFull:
            continue
        finally:
            if hasattr(pieces, "close"):  # stops the model, or the server, at once
                pieces.close()
    raise ContextFull("the question is longer than the model's context; shorten it, or lower max_new_tokens")


# --- the model -------------------------------------------------------------------------------------------------------


def _open(
    where: str | Path, decoding: Decoding, model: str, api_key_env: str | None
) -> tuple[Generator, Fits, str | None]:
    """The generator, whether a prompt fits into it, and the label it must carry."""
    if str(where).startswith(("http://", "https://")):
        return UrlGenerator(str(where), model, api_key_env=api_key_env), lambda prompt: True, None
    from xinglin.rollout.local import LocalGenerator

    folder = Path(where)
    generator = LocalGenerator.load(folder)
    longest = len(generator.weights.cos)
    if decoding.max_new_tokens >= longest:
        raise InputError(
            f"max_new_tokens is {decoding.max_new_tokens}, the context of {folder} is {longest} tokens; lower it"
        )
    room = longest - decoding.max_new_tokens
    return generator, lambda prompt: len(generator.encode([prompt])[0]) <= room, synthetic_label(folder)


def synthetic_label(folder: Path) -> str | None:
    """The label of a model that proves the machinery, not medicine: by its sidecar, its stage, or its size."""
    from xinglin.models.load import describe, read_sidecar

    base = describe(folder).base
    said = any(read_sidecar(path).get("synthetic") for path in (folder, base))
    return SYNTHETIC if said or num_parameters(base) < SMALLEST_REAL else None


def num_parameters(folder: Path) -> int:
    """Counted from the headers of the weight files; no weight is read."""
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    return count


# --- the person, or the pipe -----------------------------------------------------------------------------------------


def typed_lines() -> Iterator[str]:
    """Lines of a person at the terminal, with editing and history where readline is there."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    while True:
        try:
            yield _clean(input("你> " if sys.stdout.isatty() else ""))
        except KeyboardInterrupt:
            say("\n/exit 或 Ctrl-D 退出")
        except EOFError:
            return


def piped_lines(stream: BinaryIO) -> Iterator[str]:
    """Lines of a pipe or a file. Raises `InputError` with the number of a line that is not UTF-8."""
    for number, raw in enumerate(stream, 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"standard input, line {number}: byte {error.start} is not UTF-8; pipe UTF-8") from None


def _clean(text: str) -> str:
    """Bytes that the terminal could not decode arrive as surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
