"""TRL's trainers, and Unsloth's over them: SFTTrainer, DPOTrainer, RewardTrainer, GRPOTrainer.

Token ids come from the bench's file in place of the tokenizer, rows are taken in the file's order in place of the
shuffle. `settings` are arguments of the trainer's config, beside those of APART: `attention` (transformers' name of the
kernel), `pack` (rows joined to packs of so many tokens), and for Unsloth `dtype` (of the weights) and `compile`. A
callback reads the clock at the end of each step.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import protocol

APART = ("attention", "pack", "dtype", "compile")


def arguments(job: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """What all peers train with, and the settings of this mode."""
    settings = {name: value for name, value in job["settings"].items() if name not in APART}
    return {
        "output_dir": str(scratch / "trainer"),
        "per_device_train_batch_size": job["batch"],
        "max_steps": job["warmup"] + job["steps"],
        "learning_rate": job["lr"],
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "train_sampling_strategy": "sequential",
        **({"logging_steps": 1} if job["equality"] else {}),
        **settings,
    }


def watch(clock: protocol.Clock, name: str) -> Any:
    """A callback: the clock at the end of each step, and the number that must agree where it is logged."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            clock.tick()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
            if logs and name in logs:
                clock.curve.append(float(logs[name]))

    return Watch()


def count_tokens(trainer: Any, clock: protocol.Clock) -> None:
    """Tokens of each step that are no padding."""
    step = trainer.training_step

    def counted(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        mask = inputs.get("attention_mask")
        clock.tokens.append(int(inputs["input_ids"].numel() if mask is None else mask.sum()))
        return step(model, inputs, *given, **named)

    trainer.training_step = counted


def load(job: dict[str, Any], kind: str = "AutoModelForCausalLM", **options: Any) -> Any:
    """The bench's model in fp32, with the kernel of attention that the settings name; Unsloth's by its own loader."""
    import transformers

    options |= {"attn_implementation": job["settings"]["attention"]} if "attention" in job["settings"] else {}
    if job["peer"] == "unsloth":
        return unsloth_model(job, options)
    return getattr(transformers, kind).from_pretrained(job["model"], dtype="float32", **options)


def unsloth_model(job: dict[str, Any], options: dict[str, Any]) -> Any:
    """As its documentation loads a model for full training; it chooses the type of the weights itself."""
    import torch
    from unsloth import FastLanguageModel

    dtype = job["settings"].get("dtype")
    model, _ = FastLanguageModel.from_pretrained(
        job["model"],
        max_seq_length=2048,
        dtype=getattr(torch, dtype) if dtype else None,
        load_in_4bit=False,
        full_finetuning=True,
        use_gradient_checkpointing=job["settings"].get("gradient_checkpointing", "unsloth"),
        **options,
    )
    return model


def tokenizer(job: dict[str, Any]) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(job["model"])


def sft(job: dict[str, Any], scratch: Path, clock: protocol.Clock) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"input_ids": row["prompt"] + row["answer"], "labels": [-100] * len(row["prompt"]) + row["answer"]}
        for row in protocol.read_rows(job, job["rows"])
    ]
    values = {"max_length": 2048, **arguments(job, scratch)}
    pack = job["settings"].get("pack")
    if pack:  # as many packs a step as hold the tokens of a step of rows
        tokens = sum(len(row["input_ids"]) for row in rows) / len(rows) * job["batch"]
        values |= {"packing": True, "max_length": pack, "per_device_train_batch_size": max(1, round(tokens / pack))}
    trainer = SFTTrainer(
        load(job), SFTConfig(**values), train_dataset=Dataset.from_list(rows), processing_class=tokenizer(job)
    )
    count_tokens(trainer, clock)
    return trainer


def dpo(job: dict[str, Any], scratch: Path, clock: protocol.Clock) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Tokenised(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *given: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            found = super()._precompute_ref_logps(*given, **named)
            clock.apart["reference"] = time.perf_counter() - start
            return found

    rows = [
        {"prompt_ids": row["prompt"], "chosen_ids": row["chosen"], "rejected_ids": row["rejected"]}
        for row in protocol.read_rows(job, job["rows"])
    ]
    config = DPOConfig(max_length=2048, beta=0.1, **arguments(job, scratch))
    dataset = Dataset.from_list(rows)
    return Tokenised(load(job), None, config, train_dataset=dataset, processing_class=tokenizer(job))


def reward(job: dict[str, Any], scratch: Path, clock: protocol.Clock) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = [
        {"chosen_ids": row["prompt"] + row["chosen"], "rejected_ids": row["prompt"] + row["rejected"]}
        for row in protocol.read_rows(job, job["rows"])
    ]
    model = load(job, "AutoModelForSequenceClassification", num_labels=1)
    model.score.weight.data.zero_()  # the head is no part of the folder: all peers begin with one that says 0
    config = RewardConfig(max_length=2048, **arguments(job, scratch))
    return RewardTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer(job))


def grpo(job: dict[str, Any], scratch: Path, clock: protocol.Clock) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rows = protocol.read_rows(job, job["rows"])[: job["groups"]]
    prompts = {str(number): row["prompt"] for number, row in enumerate(rows)}

    class Tokenised(GRPOTrainer):  # type: ignore[misc]
        def _tokenize_prompts(self, asked: Any) -> Any:
            return [prompts[name] for name in asked], None, {}

    new = job["new_tokens"]
    values: dict[str, Any] = {
        "num_generations": job["answers"],
        "max_completion_length": new,
        "generation_kwargs": {"min_new_tokens": new},
        "shuffle_dataset": False,
        "temperature": 1.0,
        **arguments(job, scratch),
    }
    options: dict[str, Any] = {}
    if job["equality"]:
        values["scale_rewards"] = "none"  # TRL divides by the n - 1 deviation, we by the n one: a constant factor
        options["rollout_func"] = fixed_answers(rows, job["answers"])
    return Tokenised(
        load(job),
        reward_of(job),
        GRPOConfig(**values),
        train_dataset=Dataset.from_list([{"prompt": name} for name in prompts]),
        processing_class=tokenizer(job),
        **options,
    )


def reward_of(job: dict[str, Any]) -> Any:
    def score(completion_ids: Any = None, **given: Any) -> list[float]:
        if not job["equality"]:
            return [protocol.even_share(ids) for ids in completion_ids]
        size = job["answers"]
        groups = [completion_ids[start : start + size] for start in range(0, len(completion_ids), size)]
        return [reward for group in protocol.unit_rewards(groups) for reward in group]

    return score


def fixed_answers(rows: list[dict[str, Any]], answers: int) -> Any:
    """The check of equal results: the file's answers in place of sampled ones."""

    def fixed(asked: Any, trainer: Any) -> dict[str, Any]:
        seen: dict[str, int] = {}
        found: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": None}
        for name in asked:
            place = seen[name] = seen.get(name, -1) + 1
            found["prompt_ids"].append(rows[int(name)]["prompt"])
            found["completion_ids"].append(rows[int(name)]["answers"][place % answers])
        return found

    return fixed


def work(job: dict[str, Any]) -> dict[str, Any]:
    if job["peer"] == "unsloth":
        os.environ["UNSLOTH_CPU_COMPILE"] = "1" if job["settings"].get("compile") else "0"
        import unsloth  # noqa: F401  it patches transformers and TRL, so it must be first
    import torch

    torch.set_num_threads(job["threads"])
    clock = protocol.Clock()
    scratch = Path(job["scratch"])
    trainer = {"sft": sft, "dpo": dpo, "reward": reward, "grpo": grpo}[job["task"]](job, scratch, clock)
    trainer.add_callback(watch(clock, "grad_norm" if job["task"] == "grpo" else "loss"))
    trainer.train()
    found = {"ends": clock.ends, "curve": clock.curve[: len(clock.ends)], "apart": clock.apart.get("reference", 0.0)}
    return found | ({"tokens": clock.tokens} if clock.tokens else {})


if __name__ == "__main__":
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "unsloth", "unsloth_zoo")
    protocol.main(work, *packages)
