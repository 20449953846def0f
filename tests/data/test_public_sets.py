"""Every public file at hand: no row lost, and the truths of shared/data/README.md, counted here without our code."""

import csv
import json
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from xinglin.data.provenance import licence_of
from xinglin.data.sources import import_file, import_folder, judged_preferences
from xinglin.records import TYPES, from_json, to_json

PUBLIC = Path(__file__).resolve().parents[2] / "../shared/data/public"
if not PUBLIC.is_dir():
    pytest.skip("shared/data/public is not beside the project", allow_module_level=True)
FILES = sorted(
    path.relative_to(PUBLIC).as_posix()
    for path in PUBLIC.rglob("*.*")
    if path.is_file() and path.stem not in ("LICENSE", "NOTE")
)


def run(name):
    job = import_file(PUBLIC / name)
    return job, list(job)


def lines_of(name, encoding="utf-8"):
    return [line for line in (PUBLIC / name).read_text(encoding=encoding).split("\n") if line.strip()]


def count_rows(path):
    """Rows by the plainest means for each format."""
    name = path.relative_to(PUBLIC).as_posix()
    if path.parts[-2] == "tcm_ancient_books":
        return path.read_bytes().decode("gb18030").count("<篇名>") - 1  # the first one is the header
    if path.suffix == ".csv":
        text = path.read_bytes()
        text = text.decode("gb18030" if "toyhom" in name else "utf-8")
        return sum(1 for row in csv.reader(text.splitlines(keepends=True)) if row) - 1
    if path.suffix == ".tsv":
        return len(lines_of(name)) - 1
    text = path.read_text(encoding="utf-8")
    try:
        return len(json.loads(text))
    except json.JSONDecodeError:
        return len(lines_of(name))


@pytest.mark.parametrize("name", FILES)
def test_every_row_of_every_file_is_accounted_for(name):
    job, records = run(name)
    assert job.read == count_rows(PUBLIC / name) > 0
    assert job.accepted + sum(job.rejected.values()) == job.read
    assert job.records == len(records) == sum(job.kinds.values())
    assert sum(job.schemas.values()) == job.read and "unknown" not in job.schemas
    assert len({record.id for record in records}) == len(records)
    for record in records[:50]:
        assert from_json(to_json(record)) == record
        assert record.source == name.split("/")[0] and record.meta["row"] > 0 and record.meta["schema"] in job.schemas


def test_the_whole_folder_in_well_under_a_minute():
    start = time.perf_counter()
    jobs = import_folder(PUBLIC)
    kinds = Counter()
    for job in jobs.values():
        assert job.skipped == "not data: licence or note" or not job.skipped
        assert not job.error
        for _ in job:
            pass
        kinds.update(job.kinds)
    assert time.perf_counter() - start < 60
    assert set(kinds) == set(TYPES) - {"note"}


def test_cmedqaner_mismatches():
    for name in ("chineseblue/cMedQANER/train.json", "chineseblue/cMedQANER/dev.json"):
        spans = wrong = 0
        for line in lines_of(name):
            row = json.loads(line)
            for span in row["mention_data"]:
                at = int(span["offset"])
                spans += 1
                wrong += row["text"][at : at + len(span["mention"])] != span["mention"]
        job, records = run(name)
        assert job.flags["span_mismatches"] == wrong
        assert sum(len(record.entities) for record in records) == spans - job.flags.get("spans_left_out", 0)


def test_cmedqa_uses_only_questions_with_one_or_two_positives():
    name = "chineseblue/cMedQA/dev.txt"
    labels = defaultdict(list)
    for line in lines_of(name):
        label, question, _ = line.split("\t", 2)
        labels[question].append(label)
    positives = Counter(group.count("1") for group in labels.values())
    assert len(labels) == 895 and positives[0] == 677  # as in data/README.md
    assert sum(count for number, count in positives.items() if number > 2) == 102
    assert positives[1] + 2 * positives[2] == 126
    job, records = run(name)
    assert len(records) == positives[1] + positives[2]
    assert sum(record.ranks.count(1) for record in records) == 126
    assert job.rejected["question_without_positive"] == sum(len(g) for g in labels.values() if "1" not in g)


def test_cmdd_starts_with_the_doctor_and_counts_mismatches():
    name = "chineseblue/CMDD/train_0-899.jsonl"
    first = mismatches = 0
    for line in lines_of(name):
        turns = json.loads(line)["dialogue-content"]
        first += turns[0]["speaker"] == "医生"
        mismatches += sum(turn["label"].count("B") != len(turn["normalized"]) for turn in turns)
    job, records = run(name)
    assert job.flags["assistant_first"] == first == 900
    assert job.flags["bio_symptom_mismatches"] == mismatches
    assert all(record.messages[0].role == "user" and record.messages[-1].role == "assistant" for record in records)
    assert all(a.role != b.role for r in records for a, b in zip(r.messages, r.messages[1:], strict=False))


def test_cmedir_labels_give_the_ranks():
    name = "chineseblue/cMedIR/dev_0-1999.json"
    job, records = run(name)
    rows = [json.loads(line) for line in lines_of(name)]
    assert job.read == 2000 and job.accepted > 1980
    for record in records:
        labels = [int(document["label"]) for document in rows[record.meta["row"] - 1]["documents"]]
        assert (labels[0] > labels[1]) == (record.ranks[0] < record.ranks[1])
        assert not any(answer.text.startswith(":") or answer.text.endswith("`") for answer in record.answers)


def test_toyhom_reversed_meanings_are_quarantined():
    name = "toyhom_neike/样例_内科5000-6000.csv"
    with (PUBLIC / name).open(encoding="gb18030", newline="") as file:
        answers = [row["answer"] for row in csv.DictReader(file)]
    slow = {i for i, text in enumerate(answers) if "放慢康复速度" in text}
    soft = {i for i, text in enumerate(answers) if "放柔" in text}
    vaccine = {i for i, text in enumerate(answers) if "麻醉乙肝疫苗" in text or "麻醉乙肝免疫球蛋白" in text}
    across = {i for i, text in enumerate(answers) if "横向散播" in text}
    assert (len(answers), len(slow), len(soft), len(across)) == (7644, 184, 432, 54)  # as in data/README.md
    job, records = run(name)
    assert job.container.encoding == "gb18030"
    assert job.rejected["meaning_reversed"] >= len(slow | soft | vaccine | across)
    kept = "\n".join(record.messages[-1].content for record in records)
    assert not any(word in kept for word in ("放慢康复", "放柔病情", "麻醉乙肝", "横向散播"))


def test_exam_keys_and_subjects():
    job, records = run("cmexam_val/val_0-3404.csv")
    with (PUBLIC / "cmexam_val/val_0-3404.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert job.rejected == {"private_use_U+E1D8": 1}
    good = [row for row in rows if not any(0xE000 <= ord(char) <= 0xF8FF for cell in row.values() for char in cell)]
    assert [record.answer for record in records] == ["".join(sorted(row["Answer"])) for row in good]
    assert [len(record.options) for record in records] == [row["Options"].count("\\n") + 1 for row in good]
    assert sum(not record.explanation for record in records) == sum(row["Explanation"] == "nan" for row in rows)
    _, records = run("cmmlu/test/anatomy.csv")
    assert len(records) == 148 and {record.subject for record in records} == {"anatomy"}
    assert sum(len(run(f"cmmlu/test/{n}.csv")[1]) for n in ("college_medicine", "professional_medicine")) == 273 + 376


def test_safetybench_joins_its_answers():
    answers = json.loads((PUBLIC / "safetybench_zh_subset/answers_even.json").read_text(encoding="utf-8"))
    questions = json.loads((PUBLIC / "safetybench_zh_subset/test_zh_even.json").read_text(encoding="utf-8"))
    _, records = run("safetybench_zh_subset/test_zh_even.json")
    keys = ["ABCD"[answers[str(question["id"])]["answer"]] for question in questions]
    assert [record.answer for record in records] == keys


def test_dialogues_keep_their_turns():
    rows = [json.loads(line) for line in lines_of("zhongjing/CMtMedQA_test_mt_0-499.json")]
    _, records = run("zhongjing/CMtMedQA_test_mt_0-499.json")
    assert [len(record.messages) for record in records] == [2 * len(row["history"]) + 2 for row in rows]
    rows = json.loads((PUBLIC / "huatuo_bencao/liver_cancer.json").read_text(encoding="utf-8"))
    _, records = run("huatuo_bencao/liver_cancer.json")
    turns = [row["instruction"].count("<user>:") + row["instruction"].count("<bot>:") + 1 for row in rows]
    assert [len(record.messages) for record in records] == turns
    assert not any("<user>" in m.content or "<bot>" in m.content for r in records for m in r.messages)
    _, records = run("disc_medllm/eval/dialogues/gpt-4_cmd.json")
    assert len(records) == 121 and {len(record.messages) for record in records} == {6}
    _, records = run("zhongjing/CMtMedQA_test_adversarial_0-71.json")
    assert len(records) == 72 and all(record.kind == "safety" and record.reference for record in records)


def test_tool_calls_are_refused_and_plain_ones_kept():
    rows = json.loads((PUBLIC / "llamafactory_demo/glaive_toolcall_zh_demo.json").read_text(encoding="utf-8"))
    tools = sum(any(turn["from"] in ("function_call", "observation") for turn in row["conversations"]) for row in rows)
    job, _ = run("llamafactory_demo/glaive_toolcall_zh_demo.json")
    assert job.rejected == {"tool_roles": tools} and tools == 159


def test_judge_scores_all_parse_and_ties_dominate():
    talks, scores = [], []
    for model, file in (
        ("DISC-MedLLM", "DISC-MedLLM_cmd_v2"),
        ("bianque-v2", "bianque-v2_cmd"),
        ("gpt-4", "gpt-4_cmd"),
    ):
        talks += run(f"disc_medllm/eval/dialogues/{model}_cmd.json")[1]
        scores += run(f"disc_medllm/eval/gpt4_scores/cmd/result_{file}.jsonl")[1]
    assert len(talks) == 363 and len(scores) == 361 and all(len(rollout.scores) == 4 for rollout in scores)
    found, counts = judged_preferences(talks, scores, margin=0.5)
    assert sum(counts.values()) == 121 and counts["tied"] > counts["preferred"] == len(found) > 0
    for record in found:
        means = record.meta["means"]
        assert max(means) - min(means) >= 0.5 and record.ranks[means.index(max(means))] == 1


def test_books_are_clean_and_their_losses_measured():
    boxes = 0
    for path in sorted((PUBLIC / "tcm_ancient_books").glob("[0-9]*.txt")):
        job, records = run(path.relative_to(PUBLIC).as_posix())
        text = "\n".join(record.text for record in records)
        assert "\\x" not in text and "<篇名>" not in text and "∶" not in text
        assert records[0].meta["book_losses"]["num_boxes"] == path.read_bytes().decode("gb18030").count("□")
        assert "1911" in records[0].meta["year"] or records[0].meta["dynasty"]
        boxes += text.count("□")
    assert boxes == 42


def test_lexicons_and_rankings():
    job, (lexicon,) = run("thuocl/THUOCL_medical.txt")
    assert job.accepted == 18749 and lexicon.text.split("\n")[0] == "精神\t606946"
    assert len(lexicon.text.split("\n")) == 18749
    _, records = run("rlhf_label_sample/output_result.tsv")
    assert [len(record.answers) for record in records] == [2, 4]
    assert len(run("rlhf_label_sample/input_file.json")[1]) == 40


def test_provenance_of_every_set():
    short = {folder.name: licence_of(folder) for folder in PUBLIC.iterdir() if folder.is_dir()}
    assert short["cmmlu"].licence == "CC BY-NC-SA 4.0" and short["cmmlu"].research_only
    assert short["thuocl"].licence == "MIT" and not short["thuocl"].research_only
    assert short["huatuo_bencao"].licence == "Apache-2.0" and short["huatuo_bencao"].research_only
    assert short["cmexam_val"].research_only and short["promptcblue_toy"].research_only
    assert short["tcm_ancient_books"].licence == ""
    assert short["cvalues"].commit == "3018d3886890d04c95c9051c7055fb19e36ef592"
    _, records = run("cmmlu/dev/anatomy.csv")
    assert records[0].meta["research_only"] is True and records[0].meta["file"] == "dev/anatomy.csv"
    deep = PUBLIC / "chineseblue/cMedIC/dev.txt"
    assert licence_of(deep).source == "github.com/alibaba-research/ChineseBLUE"
