"""A folder of public sets becomes a run's data, in the layout of the ward (data/ward/build.py).

    documents/{train,valid}.jsonl        old books, encyclopaedia pages; general instructions (meta.domain says which)
    conversations/{train,valid}.jsonl    single turns, dialogues, exam and entity tasks in the form the evaluation asks
    general/{train,valid}.jsonl          general instructions
    preferences/{train,valid}.jsonl      chosen and rejected, judged dialogues, a small share of retrieval rankings
    questions/{train,test}.jsonl         a doctor's single turns: rollout prompts, and the test
    exam/{dev,test} general_exam/{dev,test} entities/{train,test} safety/test safety_exam/test .jsonl

Each file is read once. Of every pool the records with the smallest seeded hashes stay in memory (a sample whose bytes
depend on the seed and the texts alone); tests are drawn first, then validation, then training, turn about from each
data set. No normalised text goes to two splits. Every record is counted: used, or left with a reason.
`general_questions` is not built: no public set at hand has questions with one checkable short answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xinglin.config import PublicSizes
from xinglin.data import public_records as forms
from xinglin.data.public_records import MAX_CHARS, keys_of, pool_of, too_long
from xinglin.data.sources import Import, import_folder, judged_preferences
from xinglin.records import Conversation, InputError, Record, Rollout, record_id, write_records

VALID_SHARE = 0.08
MOST_TEST = 0.2  # of a pool that training needs too
RETRIEVAL_SHARE = 0.15  # of the preferences: titles and forum answers found by search, not written to be compared
CONVERSATION_SHARES = {"multi": 0.2, "exam": 0.12, "entities": 0.08}  # the rest are single turns
GENERAL_DOCUMENTS = 0.25
NUM_SHOTS = 20  # exam questions kept as examples of each set that has no dev file
RUN = 20  # so many equal characters in a row with a test text are an overlap
NEEDED = {
    "documents": "texts for pre-training (books, encyclopaedia pages)",
    "conversations": "medical conversations",
    "general": "general instructions (a set with alpaca in its name)",
    "preferences": "preferences (chosen and rejected, rankings)",
    "questions": "single-turn questions with a doctor's answer",
}
OPTIONAL = ("exam/test", "general_exam/test", "entities/test", "safety/test", "safety_exam/test")


@dataclass(slots=True)
class Candidate:
    """A record that may be drawn. `keys[0]` is its identity, the others are texts that no other split may hold."""

    rank: str
    keys: tuple[str, ...]
    record: Record
    file: str


Pool = dict[str, deque[Candidate]]  # by data set


@dataclass(slots=True)
class _Folder:
    """What was read: pools by name, an account of each file, and the parts of judged preferences."""

    pools: dict[str, Pool] = field(default_factory=lambda: defaultdict(lambda: defaultdict(deque)))
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    talks: list[Conversation] = field(default_factory=list)
    scores: list[Rollout] = field(default_factory=list)

    def leave(self, file: str, reason: str, count: int = 1) -> None:
        left = self.files[file].setdefault("left", {})
        left[reason] = left.get(reason, 0) + count

    def size(self, *names: str) -> int:
        return sum(len(queue) for name in names for queue in self.pools[name].values())


def build_public(
    out: Path,
    data_dir: Path,
    sizes: PublicSizes,
    seed: int,
    *,
    needed: Sequence[str] = tuple(NEEDED),
    max_chars: Mapping[str, int] = MAX_CHARS,
) -> dict[str, Any]:
    """Write every file; the facts for the manifest. A kind in `needed` of which nothing is left is an `InputError`."""
    folder = _read_folder(data_dir, {**MAX_CHARS, **max_chars}, seed, _most_kept(sizes))
    draws = _Draws(folder)
    parts = _tests(draws, sizes)
    draws.remember_runs()
    parts |= _training(draws, sizes)
    _check(data_dir, parts, needed, folder)
    counts = {
        name: write_records(out / f"{name}.jsonl", [_marked(c.record, name, folder.files[c.file]) for c in drawn])
        for name, drawn in parts.items()
        if drawn
    }
    return _facts(folder, draws, counts, max_chars)


def _most_kept(sizes: PublicSizes) -> int:
    """Candidates kept of one pool of one file: enough for every draw, and as many again that may overlap."""
    return 2 * sum(sizes.model_dump().values()) + 1000


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_folder(data_dir: Path, limits: Mapping[str, int], seed: int, most: int) -> _Folder:
    folder = _Folder()
    for path, job in import_folder(data_dir).items():
        file = path.relative_to(data_dir).as_posix()
        if job.skipped:
            continue
        folder.files[file] = {}
        try:
            found = {} if job.error else _read_file(folder, file, job, limits, seed, most)
        except InputError as error:
            job.error, found = str(error), {}
        _account(folder.files[file], job, data_dir)
        for name, candidates in found.items():
            folder.pools[name][job.source].extend(candidates)
    _judge(folder, seed, limits)
    for pool in folder.pools.values():
        for name, queue in pool.items():
            pool[name] = deque(sorted(queue, key=lambda candidate: candidate.rank))
    return folder


def _read_file(
    folder: _Folder, file: str, job: Import, limits: Mapping[str, int], seed: int, most: int
) -> dict[str, list[Candidate]]:
    """The candidates of one file by pool, the smallest hashes only; nothing stays of a file that breaks half-way."""
    found: dict[str, list[Candidate]] = defaultdict(list)
    talks, scores = len(folder.talks), len(folder.scores)
    try:
        for record in job:
            name = pool_of(record, f"{record.source}/{record.meta.get('file', file)}")
            limit = too_long(record, limits)
            if isinstance(record, Conversation) and name == "judged dialogue":
                folder.talks.append(record)
                folder.leave(file, "judged dialogue: compared for preferences")
            elif isinstance(record, Rollout) and name == "judge's score":
                folder.scores.append(record)
                folder.leave(file, "judge's score: used for preferences")
            elif name.startswith("not used"):
                folder.leave(file, name)
            elif limit:
                folder.leave(file, f"longer than {limit} characters")
            else:
                found[name].append(_candidate(record, file, seed))
                if len(found[name]) > 2 * most:
                    found[name] = _smallest(folder, found[name], most)
    except InputError:
        del folder.talks[talks:], folder.scores[scores:]
        folder.files[file].clear()
        raise
    return {name: _smallest(folder, candidates, most) for name, candidates in found.items()}


def _candidate(record: Record, file: str, seed: int) -> Candidate:
    keys = keys_of(record)
    return Candidate(record_id("", seed, keys[0]), keys, record, file)


def _smallest(folder: _Folder, candidates: list[Candidate], most: int) -> list[Candidate]:
    candidates.sort(key=lambda candidate: candidate.rank)
    if candidates[most:]:
        folder.leave(candidates[0].file, "not drawn", len(candidates) - most)
    return candidates[:most]


def _account(account: dict[str, Any], job: Import, data_dir: Path) -> None:
    if job.error:
        account["error"] = job.error.replace(f"{data_dir}/", "")
        return
    summary = job.summary()
    account.update({name: summary[name] for name in ("read", "accepted", "records", "rejected", "kinds")})
    account |= {"data_set": job.source, "from": job.provenance.source, "commit": job.provenance.commit}
    account |= {"licence": job.provenance.licence, "research_only": job.provenance.research_only}


def _judge(folder: _Folder, seed: int, limits: Mapping[str, int]) -> None:
    """Preferences out of judged dialogues; they belong to no one file and have an account of their own."""
    if not folder.talks or not folder.scores:
        return
    found, counts = judged_preferences(folder.talks, folder.scores)
    first = next(a for a in folder.files.values() if a.get("data_set") == folder.talks[0].source)
    words = {name: first[name] for name in ("data_set", "from", "commit", "licence", "research_only")}
    folder.files["judged preferences"] = {"records": len(found), "questions": counts, **words}
    for number, record in enumerate(found, 1):
        if limit := too_long(record, limits):
            folder.leave("judged preferences", f"longer than {limit} characters")
            continue
        record = replace(record, meta={"file": "judged preferences", "row": number, **record.meta})
        folder.pools["preferences"][record.source].append(_candidate(record, "judged preferences", seed))


# --- drawing ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Draws:
    """Takes candidates out of the pools, each once, and lets no text into two splits."""

    folder: _Folder
    holders: dict[str, str] = field(default_factory=dict)
    """Text -> the file that took it first."""
    identities: set[tuple[str, str]] = field(default_factory=set)
    runs: dict[str, str] = field(default_factory=dict)
    overlap: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def take(
        self, target: str, names: Sequence[str], count: int, make: Callable[[Record], Record] = lambda record: record
    ) -> list[Candidate]:
        """`count` candidates, turn about from each data set; in the order of their hashes."""
        queues = [queue for name in names for queue in self.folder.pools[name].values()]
        taken: list[Candidate] = []
        while len(taken) < count and any(queues):
            for queue in queues:
                found = self._next(queue, target) if len(taken) < count else None
                taken += [found] if found else []
        for candidate in taken:
            candidate.record = make(candidate.record)
        return sorted(taken, key=lambda candidate: candidate.rank)

    def remember_runs(self) -> None:
        """From here on a text that shares `RUN` characters in a row with a test is an overlap, too."""
        for key, holder in self.holders.items():
            for start in range(len(key) - RUN + 1):
                self.runs.setdefault(key[start : start + RUN], holder)

    def _next(self, queue: deque[Candidate], target: str) -> Candidate | None:
        while queue:
            candidate = queue.popleft()
            if reason := self._conflict(candidate, target):
                self.folder.leave(candidate.file, reason)
                continue
            self.identities.add((target, candidate.keys[0]))
            for key in candidate.keys:
                self.holders.setdefault(key, target)
            used = self.folder.files[candidate.file].setdefault("used", {})
            used[target] = used.get(target, 0) + 1
            return candidate
        return None

    def _conflict(self, candidate: Candidate, target: str) -> str:
        """Why a candidate may not go into this file, "" when it may."""
        split = target.split("/")[1]
        for key in candidate.keys:
            holder = self.holders.get(key, target)
            if holder.split("/")[1] != split:
                self.overlap[target][holder] += 1
                return f"overlap with {holder.split('/')[1]}"
        if (target, candidate.keys[0]) in self.identities:
            return "duplicate"
        if split in ("train", "valid"):
            for key in candidate.keys:
                for start in range(len(key) - RUN + 1):
                    if holder := self.runs.get(key[start : start + RUN], ""):
                        self.overlap[target][f"{holder} ({RUN} characters in a row)"] += 1
                        return f"overlap with {holder.split('/')[1]} ({RUN} characters in a row)"
        return ""


Parts = dict[str, list[Candidate]]


def _tests(draws: _Draws, sizes: PublicSizes) -> Parts:
    """The tests, and the examples (dev) that are shown with them. Sets with a test file of their own give that."""
    size = draws.folder.size

    def some(count: int, *names: str) -> int:
        return min(count, max(1, round(MOST_TEST * size(*names))))

    shared = sizes.exam // 2 if size("exam_test") else sizes.exam
    asked, num_questions = some(shared, "exam"), some(sizes.test_questions, "doctor")
    own_test = "entities_test" if size("entities_test") else "entities"
    num_entities = sizes.entities if own_test == "entities_test" else some(sizes.entities, "entities")
    parts = {
        "questions/test": draws.take("questions/test", ["doctor"], num_questions, forms.question),
        "exam/dev": draws.take("exam/dev", ["exam_dev"], size("exam_dev"))
        + draws.take("exam/dev", ["exam"], some(NUM_SHOTS, "exam")),
        "exam/test": draws.take("exam/test", ["exam"], asked),
        "general_exam/dev": draws.take("general_exam/dev", ["general_exam_dev"], size("general_exam_dev")),
        "general_exam/test": draws.take("general_exam/test", ["general_exam_test"], sizes.exam),
        "entities/test": draws.take("entities/test", [own_test], num_entities),
        "safety/test": draws.take("safety/test", ["safety"], sizes.safety, forms.unlabelled_safety),
        "safety_exam/test": draws.take("safety_exam/test", ["safety_exam"], sizes.safety),
    }
    rest = draws.take("exam/test", ["exam_test"], sizes.exam - len(parts["exam/test"]))
    parts["exam/test"] = sorted(parts["exam/test"] + rest, key=lambda candidate: candidate.rank)
    return parts


def _training(draws: _Draws, sizes: PublicSizes) -> Parts:
    """Validation before training: what both could have goes to validation."""
    types = forms.entity_types(draws.folder.pools, ("entities_test", "entities"))
    parts: Parts = {}
    for split in ("valid", "train"):

        def share(count: int, *names: str, split: str = split) -> int:
            wanted = min(count, draws.folder.size(*names))
            return count if split == "train" else max(1, round(VALID_SHARE * wanted)) if wanted else 0

        if split == "train":
            num_prompts = min(sizes.questions, round(MOST_TEST * draws.folder.size("doctor")))
            parts["questions/train"] = draws.take("questions/train", ["doctor"], num_prompts, forms.question)
            parts["entities/train"] = draws.take("entities/train", ["entities"], sizes.entities)
        general = draws.take(f"general/{split}", ["general"], share(sizes.general, "general"))
        told = _as_documents(general, round(GENERAL_DOCUMENTS * share(sizes.documents, "documents")))
        texts = draws.take(
            f"documents/{split}", ["documents"], share(sizes.documents, "documents") - len(told), forms.medical
        )
        parts[f"documents/{split}"] = sorted(told + texts, key=lambda candidate: candidate.rank) if texts else []
        parts[f"general/{split}"] = general
        count = share(sizes.conversations, *CONVERSATION_SHARES, "doctor", "model_written")
        parts[f"conversations/{split}"] = _conversations(draws, f"conversations/{split}", count, types)
        parts[f"preferences/{split}"] = _preferences(
            draws, f"preferences/{split}", share(sizes.preferences, "preferences", "retrieval")
        )
    return parts


def _as_documents(general: list[Candidate], count: int) -> list[Candidate]:
    """General instructions as plain text: what keeps pre-training from being medicine alone."""
    return [replace(candidate, record=forms.general_document(candidate.record)) for candidate in general[:count]]


def _conversations(draws: _Draws, target: str, count: int, types: Sequence[str]) -> list[Candidate]:
    makes: dict[str, Callable[[Record], Record]] = {
        "multi": forms.conversation,
        "exam": forms.exam_task,
        "entities": lambda record: forms.entity_task(record, types),
    }
    taken: list[Candidate] = []
    for name, part in CONVERSATION_SHARES.items():
        taken += draws.take(target, [name], round(part * count), makes[name])
    taken += draws.take(target, ["doctor", "model_written"], count - len(taken), forms.conversation)
    taken += draws.take(target, ["multi"], count - len(taken), forms.conversation)
    return sorted(taken, key=lambda candidate: candidate.rank)


def _preferences(draws: _Draws, target: str, count: int) -> list[Candidate]:
    found = draws.take(target, ["retrieval"], round(RETRIEVAL_SHARE * count), forms.preference)
    found += draws.take(target, ["preferences"], count - len(found), forms.preference)
    return sorted(found, key=lambda candidate: candidate.rank)


# --- what is said about it -------------------------------------------------------------------------------------------


def _marked(record: Record, name: str, account: dict[str, Any]) -> Record:
    meta = {**record.meta, "licence": account["licence"], "research_only": account["research_only"]}
    return replace(record, meta={**meta, "split": name.split("/")[1]})


def _check(data_dir: Path, parts: Parts, needed: Sequence[str], folder: _Folder) -> None:
    for name in needed:
        if name not in NEEDED:
            raise InputError(f"needed kind {name!r} is not one of {', '.join(NEEDED)}")
        splits = ("train", "test") if name == "questions" else ("train", "valid")
        if empty := [split for split in splits if not parts[f"{name}/{split}"]]:
            kinds: Counter[str] = Counter()
            for account in folder.files.values():
                kinds.update(account.get("kinds", {}))
            found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
            raise InputError(
                f"{data_dir}: nothing for {name}/{empty[0]}.jsonl, which is made from {NEEDED[name]}; found records: "
                f"{found}; add such a set, or look at one file with `xinglin data inspect FILE`"
            )


def _facts(folder: _Folder, draws: _Draws, counts: dict[str, int], limits: Mapping[str, int]) -> dict[str, Any]:
    for pool in folder.pools.values():
        for queue in pool.values():
            for candidate in queue:
                folder.leave(candidate.file, "not drawn")
    left: Counter[str] = Counter()
    for account in folder.files.values():
        left.update(account.get("left", {}))
    used = [account for account in folder.files.values() if account.get("used")]
    licences = {
        account["data_set"]: {name: account[name] for name in ("from", "commit", "licence", "research_only")}
        for account in used
    }
    return {
        "counts": counts,
        "left": dict(left),
        "files": folder.files,
        "licences": licences,
        "research_only": sorted(name for name, words in licences.items() if words["research_only"]),
        "splits": "no normalised question or document stands in two splits",
        "overlap": {target: dict(found) for target, found in draws.overlap.items()},
        "max_chars": {**MAX_CHARS, **limits},
        "not_built": {name: "no such records in the folder" for name in OPTIONAL if name not in counts},
    }
