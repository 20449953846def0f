"""transformers' `generate` on the bench's model: sampling, with every answer `new_tokens` long."""

from __future__ import annotations

from typing import Any

import protocol


def work(job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job["threads"])
    settings = dict(job["settings"])
    dtype = getattr(torch, settings.pop("dtype", "float32"))
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # nothing ends an answer
    prompts = torch.tensor([row["prompt"] for row in protocol.read_rows(job, job["rows"])])
    sampling = {"do_sample": False} if job["equality"] else {"do_sample": True, "temperature": 1.0, "top_k": 0}

    def generate(count: int, new_tokens: int) -> list[list[int]]:
        ids = prompts[:count]
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            pad_token_id=0,
            **sampling,
            **settings,
        )
        return [row.tolist() for row in found[:, ids.shape[1] :]]

    return protocol.measure_rollout(job, generate)


if __name__ == "__main__":
    protocol.main(work, "torch", "transformers")
