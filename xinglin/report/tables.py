"""The head, the data, values published or assumed, samples side by side, files: tables out of a run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xinglin.recipe import load_recipe
from xinglin.records import InputError
from xinglin.report import overlap, words
from xinglin.report.folder import RunFolder, StageFolder, listing, mapping

STATUS = {"done": "完成", "unfinished": "没有完成", "not run": "没有运行"}
OWN_KEYS = frozenset({"stage", "key", "config", "inputs", "seconds", "versions", "outputs", "kind", "synthetic"})
SHOWN_ELSEWHERE = frozenset({"counts", "diagnostics", "rounds", "decoding", "stopped_by"})
MOST_TEXT, MOST_LINES = 700, 12
QUESTION_FILES = (
    *("questions/test.jsonl", "questions/heldout_diseases.jsonl", "safety/test.jsonl", "general_questions/test.jsonl"),
    *("exam/test.jsonl", "general_exam/test.jsonl", "entities/test.jsonl"),
)
SCORES_BESIDE = ("overall", "safety", "professionalism", "fluency", "contains", "safe", "over_refusal", "accuracy")
FEWER_SAMPLES = 4


def head(run: RunFolder) -> dict[str, Any]:
    recipe, facts = run.recipe, run.facts
    base = mapping(recipe.get("base"))
    skipped = ("recipe", "data", "date", "scale")
    seconds = [words.number(stage.manifest.get("seconds")) for stage in run.stages]
    return {
        "title": str(recipe.get("title") or recipe.get("name") or facts.get("recipe") or run.out.name),
        "recipe": str(recipe.get("name") or facts.get("recipe") or "—"),
        "paper": str(recipe.get("paper") or "无（不复现某篇论文）"),
        "data": _data_words(run),
        "base": str(base.get("name") or "—"),
        "date": _date(run),
        "synthetic_data": _synthetic_data(run),
        "versions": [(name, str(value)) for name, value in facts.items() if name not in skipped],
        "seconds": words.duration(sum(value for value in seconds if value is not None)),
        "stages": [_stage_row(run, stage) for stage in run.stages],
    }


def _data_words(run: RunFolder) -> str:
    kind = str(run.facts.get("data", "—"))
    generated = "（自动生成，合成）" if _generated_notes(run) else ""
    names = {"ward": "ward：自动生成的教学病房（合成）", "public": "public：导入的公开数据集"}
    names["notes"] = f"notes：去标识化的病历{generated}，其余部分见数据一节"
    return names.get(kind, kind)


def _generated_notes(run: RunFolder) -> bool:
    return run.data is not None and str(run.data.manifest.get("notes_from", "")).startswith("generated")


def _stage_row(run: RunFolder, stage: StageFolder) -> dict[str, str]:
    parent, method = stage.config.get("from"), stage.config.get("method")
    settings = [
        f"{key} {words.plain(stage.config[key])}" for key in ("lr", "batch_size", "epochs") if key in stage.config
    ]
    return {
        "folder": stage.path.name if stage.path else "—",
        "name": stage.name,
        "kind": words.KINDS.get(stage.kind, stage.kind),
        "status": STATUS[stage.status],
        "parent": str(parent or "—"),
        "method": " · ".join([*([str(method)] if method else []), *settings]) or "—",
        "seconds": words.duration(stage.manifest.get("seconds")),
        "key": str(stage.manifest.get("key", "—")),
    }


def _date(run: RunFolder) -> str:
    """When the last stage was finished."""
    if run.facts.get("date"):
        return str(run.facts["date"])
    manifests = [stage.path / "manifest.json" for stage in run.stages if stage.path]
    times = [path.stat().st_mtime for path in manifests if path.is_file()]
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(max(times))) if times else "—"


def _synthetic_data(run: RunFolder) -> bool:
    """Whether records were generated. A stage's own mark stands on public data too, where only the model is a toy."""
    if run.facts.get("data") == "public":
        return False
    return run.facts.get("data") == "ward" or any(stage.manifest.get("synthetic") is True for stage in run.stages)


def synthetic_reasons(run: RunFolder) -> list[str]:
    """Why the banner stands on the page; none: it does not."""
    reasons = []
    if _synthetic_data(run):
        reasons.append(_synthetic_words(run))
    base = mapping(run.recipe.get("base"))
    if base and not base.get("path"):
        reasons.append("起点是随机初始化的微型演示模型（embedded tiny model），不是论文中的大模型")
    return reasons


def _synthetic_words(run: RunFolder) -> str:
    if run.facts.get("data") != "notes":
        return "全部病人、病历、问答和考题由程序生成（教学病房 ward），不是任何真实病人"
    manifest = run.data.manifest if run.data else {}
    parts = {part for found in mapping(manifest.get("origins")).values() for part in mapping(found)}
    made = ["病历由程序生成"] if _generated_notes(run) else []
    made += (
        ["问诊、偏好、考题与安全题由程序生成（教学病房 ward）"] if any("synthetic" in part for part in parts) else []
    )
    return "，".join(made) or "本次运行含程序生成的部分"


# --- data ------------------------------------------------------------------------------------------------------------


def data(run: RunFolder) -> dict[str, Any]:
    stage = run.data
    manifest = stage.manifest if stage else {}
    drops = [
        (other.name, what, words.plain(count))
        for other in run.stages
        if other.kind != "data"
        for what, count in words.flat(mapping(other.manifest.get("counts"))).items()
        if what
    ]
    extra = {key: value for key, value in manifest.items() if key not in OWN_KEYS | SHOWN_ELSEWHERE}
    for shown in ("training_overlap", "origins"):  # a table of its own, and beside the files
        extra.pop(shown, None)
    if "canaries" in extra:  # where the list lies is private
        extra["canaries"] = {"planted": mapping(extra["canaries"]).get("planted", 0)}
    imports = list(_imports(extra, ""))
    told = {name for name, _ in imports}
    others = [
        (key, words.plain(value))
        for key, value in words.flat(extra).items()
        if not any(key.startswith(name) for name in told) and not isinstance(value, (list, dict))
    ]
    return {
        "files": _file_counts(run, stage),
        "drops": drops,
        "imports": [_import_row(name, body) for name, body in imports],
        "overlap": overlap.matrix(run),
        "others": others,
        "reason": "" if stage and stage.path else "没有运行：没有 00-data 文件夹",
    }


def _file_counts(run: RunFolder, stage: StageFolder | None) -> list[tuple[str, str, str, str]]:
    """File, number of records, where they come from, hash. Counted from the files where the manifest does not say."""
    if stage is None or stage.path is None:
        return []
    counts = {name: value for name, value in words.flat(mapping(stage.manifest.get("counts"))).items() if name}
    hashes = {
        str(name).removesuffix(".jsonl"): str(value) for name, value in mapping(stage.manifest.get("outputs")).items()
    }
    if not counts:
        for path in sorted(stage.path.rglob("*.jsonl")):
            with path.open("rb") as file:
                counts[path.relative_to(stage.path).as_posix().removesuffix(".jsonl")] = sum(1 for _ in file)
    origins = mapping(stage.manifest.get("origins"))
    rows = []
    for name, count in counts.items():
        digest = hashes.get(name.removesuffix(".jsonl"), "—")[:16]
        rows.append((name, words.plain(count), words.plain(mapping(origins.get(name))), digest))
    return rows


def _imports(tree: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping that says what was read and what was refused, wherever it stands."""
    if isinstance(tree, dict):
        if "read" in tree and ("accepted" in tree or "rejected" in tree):
            yield name, tree
            return
        for key, value in tree.items():
            yield from _imports(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _imports(value, f"{name}.{index}")


def _import_row(name: str, body: dict[str, Any]) -> dict[str, str]:
    named = next((str(body[key]) for key in ("file", "path", "name", "source") if body.get(key)), name)
    rejected = body.get("rejected")
    reasons = (
        "；".join(f"{reason}：{words.plain(count)}" for reason, count in rejected.items())
        if isinstance(rejected, dict)
        else words.plain(rejected or 0)
    )
    origin = {**mapping(body.get("provenance")), **body}
    licence = str(origin.get("licence") or origin.get("license") or "没有写明")
    if origin.get("research_only") is True:
        licence += "（仅限研究）"
    why = " ".join(str(body[key]) for key in ("skipped", "error") if body.get(key))
    return {
        "name": named,
        "read": words.plain(body.get("read")),
        "accepted": words.plain(body.get("accepted", "—")),
        "rejected": " ".join(part for part in (reasons or "0", why) if part),
        "licence": licence,
    }


# --- values published or assumed -------------------------------------------------------------------------------------


def values(run: RunFolder) -> dict[str, Any]:
    """Each value with its provenance beside what this run used, and what this scale changed besides."""
    used = _flat_recipe(run.recipe)
    full, reason = _full_recipe(run)
    given = mapping(run.recipe.get("provenance"))
    rows = []
    for key, text in given.items():
        kind, _, where = str(text).partition(":")
        now, then = _lookup(used, key), _lookup(full, key)
        rows.append(
            {
                "key": str(key),
                "used": now,
                "full": then if full else "—",
                "differs": bool(full) and now != then,
                "published": kind.strip() == "published",
                "kind": {"published": "论文发表", "assumed": "我们假定"}.get(kind.strip(), "未注明"),
                "where": where.strip() if kind.strip() in ("published", "assumed") else str(text),
            }
        )
    told = tuple(f"{key}." for key in given)
    changed = [
        (key, words.plain(full[key]) if key in full else "没有", words.plain(used[key]) if key in used else "没有")
        for key in sorted(full.keys() | used.keys())
        if full and full.get(key) != used.get(key) and key not in given and not f"{key}.".startswith(told or ("\0",))
    ]
    return {"rows": rows, "changed": changed, "reason": reason}


def _full_recipe(run: RunFolder) -> tuple[dict[str, Any], str]:
    """The recipe at full scale, as it stands among the recipes now."""
    name = str(run.recipe.get("name") or run.facts.get("recipe") or "")
    try:
        recipe = load_recipe(name)
    except InputError:
        return {}, f"没有名为 {name!r} 的内置配方，无法列出完整规模的值"
    values = json.loads(recipe.model_dump_json(by_alias=True, serialize_as_any=True))
    return {**_flat_recipe(values), **words.flat({"tokens": values.get("tokens")})}, ""  # tokens of the paper alone


def _flat_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    return words.flat({"base": recipe.get("base"), **mapping(recipe.get("stages"))})


def _lookup(flat: dict[str, Any], key: str) -> str:
    """A value by its dotted name; a section is shown as its values."""
    key = str(key).removeprefix("stages.")
    if key in flat:
        return words.plain(flat[key])
    below = {name.removeprefix(f"{key}."): value for name, value in flat.items() if name.startswith(f"{key}.")}
    return (
        "，".join(f"{name} {words.plain(value)}" for name, value in below.items() if value is not None) or "没有这个值"
    )


# --- samples ---------------------------------------------------------------------------------------------------------


def samples(run: RunFolder) -> list[dict[str, Any]]:
    """The same questions answered by every checkpoint, the reference beside them."""
    by_evaluation: dict[str, dict[str, dict[str, str]]] = {}
    metrics: dict[tuple[str, str], dict[str, Any]] = {}
    for checkpoint, results in run.results.items():
        for found in results:
            name = str(found.get("name"))
            metrics[name, checkpoint] = mapping(found.get("metrics"))
            for item, text in mapping(found.get("samples")).items():
                by_evaluation.setdefault(name, {}).setdefault(str(item), {})[checkpoint] = str(text)
    wanted = {item for items in by_evaluation.values() for item in items}
    questions = _questions(run, wanted)
    blocks = []
    for name, items in by_evaluation.items():
        most = _most_samples(run) if name == "dialogue" else FEWER_SAMPLES
        rows = [
            _sample(item, answers, questions.get(item), name, metrics) for item, answers in list(items.items())[:most]
        ]
        blocks.append({"name": words.evaluation_name(name), "rows": rows})
    return blocks


def _most_samples(run: RunFolder) -> int:
    stage = next(iter(run.of_kind("evaluate")), None)
    given = words.number(stage.config.get("samples")) if stage else None
    return int(given) if given else 8


def _sample(
    item: str,
    answers: dict[str, str],
    question: dict[str, Any] | None,
    evaluation: str,
    metrics: dict[tuple[str, str], dict[str, Any]],
) -> dict[str, Any]:
    rows = []
    for checkpoint, text in answers.items():
        scores = []
        for key in SCORES_BESIDE:
            value = mapping(mapping(metrics[evaluation, checkpoint].get(key)).get("per_item")).get(item)
            if words.number(value) is not None:
                scores.append(f"{words.metric_name(key).split(' ')[0]} {words.num(value)}")
        rows.append({"checkpoint": checkpoint, "text": _cut(text), "scores": scores})
    asked, reference = _question_text(question)
    return {"id": item, "asked": asked, "reference": _cut(reference), "rows": rows}


def _questions(run: RunFolder, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The test records with these ids. An exam's rotated view is found under its question."""
    found: dict[str, dict[str, Any]] = {}
    stage = run.data
    paths = [stage.path / name for name in QUESTION_FILES] if stage and stage.path and wanted else []
    for path in filter(Path.is_file, paths):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    body = json.loads(line)
                except ValueError:
                    continue  # the data stage's own readers refuse such a file; here the question is shown as not found
                if isinstance(body, dict) and body.get("id") in wanted:
                    found[str(body["id"])] = body
    return found


def _question_text(body: dict[str, Any] | None) -> tuple[list[tuple[str, str]], str]:
    """Turns of the prompt and the reference, for an open question, an exam question or a text with entities."""
    if body is None:
        return [("题目", "（在数据文件夹里没有找到这道题）")], ""
    if isinstance(body.get("prompt"), list):
        who = {"user": "病人/提问者", "assistant": "医生", "system": "系统"}
        turns = [
            (who.get(str(m.get("role")), str(m.get("role"))), _cut(str(m.get("content"))))
            for m in map(mapping, body["prompt"])
        ]
        return turns, str(body.get("reference") or "")
    if body.get("question"):
        options = " ".join(f"{letter}. {text}" for letter, text in mapping(body.get("options")).items())
        return [("考题", _cut(f"{body['question']} {options}"))], str(body.get("answer") or "")
    entities = [mapping(entity) for entity in listing(body.get("entities"))]
    return [("文本", _cut(str(body.get("text") or "")))], "；".join(
        f"{e.get('text')}（{e.get('type')}）" for e in entities
    )


def _cut(text: str) -> str:
    """A text of a length that can be read; what is left out is said."""
    kept = "\n".join(text.splitlines()[:MOST_LINES])[:MOST_TEXT]
    return text if len(kept) >= len(text.rstrip()) else f"{kept}……（共 {len(text)} 字，此处截断）"


# --- the end of the page ---------------------------------------------------------------------------------------------


def caveats(run: RunFolder) -> list[str]:
    said = list(run.problems)
    said += overlap.caveats(run)
    for stage in run.stages:
        if stage.status != "done":
            said.append(f"{stage.name}：{STATUS[stage.status]}，本报告缺少它的结果")
    if "dirty" in str(run.facts.get("code", "")):
        said.append("代码有未提交的改动（code 带 dirty），仅凭提交号不能完全重现")
    return said


def repeat(run: RunFolder) -> list[str]:
    """Commands that make the same run again: recipe.json holds every value, `--set` included."""
    kind = str(run.facts.get("data") or "ward")
    given = kind == "public" or (kind == "notes" and not _generated_notes(run))
    data = f"--data {kind}{' --data-dir DIR' if given else ''}"
    return [f"xinglin run recipe.json {data} --out ../again", f"xinglin run recipe.json {data} --out ."]


def files(run: RunFolder) -> list[dict[str, Any]]:
    """Every output with its SHA-256, and what each stage was made from."""
    return [
        {
            "folder": stage.path.name,
            "inputs": "，".join(
                f"{name} {Path(str(value)).name}" for name, value in mapping(stage.manifest.get("inputs")).items()
            ),
            "outputs": [(str(name), str(value)) for name, value in mapping(stage.manifest.get("outputs")).items()],
        }
        for stage in run.stages
        if stage.path and stage.manifest
    ]
