"""Every value a recipe may set, typed, with its meaning beside it. No torch here: a wrong key is found at once.

A recipe's `stages:` maps a name to one of the classes below; `stage:` names the class where it differs from the name,
so that one recipe may hold `sft` and `sft-medical-only`. `from:` names the stage (or `base`) whose model is the start.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Template = Literal["chatml", "llama", "human-bot-square", "human-bot-angle"]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: object, info: ValidationInfo) -> object:
        """YAML's `yes` and `on` are True, which pydantic would read as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("a truth value (YAML reads yes, no, on, off as one) where a number or a name is expected")
        return value


class FullShape(Config):
    """The shape of the real base, for the dry run's token and memory estimate."""

    hidden_size: Positive
    num_layers: Positive
    num_heads: Positive
    num_kv_heads: Positive | None = None
    intermediate_size: Positive
    vocab_size: Positive


class Lora(Config):
    """Low-rank adapters (arXiv:2106.09685): W + alpha / rank * B A."""

    rank: Positive = 16
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Decoding(Config):
    """How answers are decoded; recorded beside each of them."""

    max_new_tokens: Positive = 128
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)


class StageConfig(Config):
    """What every stage has."""

    stage: str = ""
    seed: int = 0


class Training(StageConfig):
    """What every training stage has."""

    from_: str = Field(default="base", alias="from")
    """Stage whose model this one starts from."""
    template: Template | None = None
    """Chat template, where the model folder does not say which it is."""
    method: Literal["full", "lora", "qlora"] = "full"
    """full: all weights. lora: adapters over a float base. qlora: adapters over an NF4 base (arXiv:2305.14314)."""
    lora: Lora = Lora()
    lr: Rate = 1e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Share = 0.03
    """Share of the steps over which the learning rate rises."""
    final_lr: Share = 0.0
    """Share of `lr` that is left when the last step is done."""
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    batch_size: Positive = 16
    """Rows (conversations, documents, preferences or answers) of one optimiser step."""
    micro_batch_tokens: Positive = 4096
    """Tokens of one packed forward pass; a step takes as many passes as it needs."""
    max_seq_len: Positive = 1024
    on_long: Literal["truncate", "drop", "error"] = "truncate"
    """What happens to a row over `max_seq_len`; each one is counted."""
    epochs: float = Field(default=1, gt=0)
    max_steps: Positive | None = None
    eval_every: Positive | None = None
    """Steps between validations; default: ten over the run."""
    save_every: Positive | None = None
    """Steps between checkpoints; default: five over the run."""
    keep_best: bool = True
    """End with the weights that were best on validation (IvyGPT, section 3.1), not with the last."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; auto: bf16 where the machine multiplies it natively."""


class PublicSizes(Config):
    """How much is taken from a folder of public sets."""

    documents: Positive = 2000
    conversations: Positive = 3000
    general: Positive = 800
    preferences: Positive = 300
    questions: Positive = 200
    test_questions: Positive = 100
    exam: Positive = 300
    entities: Positive = 200
    safety: Positive = 200


class HospitalNotes(Config):
    """How a hospital's notes become training data: de-identified, six kinds, cleaned, without doubles, mixed."""

    general_share: Share
    """Share of general conversations in the training mixture, by rows. 0 must be written. `sft` draws its own
    `general_share` from them: give both the same."""
    dialogue_share: Share = 0.3
    """Share of consultations among the medical conversations; the rest are the notes' instructions."""
    size: Positive | None = None
    """Rows of the training mixture, general ones included; default: as many as there are."""
    max_epochs: float = Field(default=4.0, ge=1)
    """A part that would have to be read more often for its share is an error."""
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the patients whose instructions are kept for validation."""
    near: Share = 0.8
    """Jaccard similarity from which two instructions are duplicates; 0: equal ones only."""
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of a test item's 13-grams from which an instruction that holds them is dropped."""
    count: Positive = 5000
    """Synthetic notes that are generated where no --data-dir is given."""
    general_file: str | None = None
    """JSONL of general conversations; default: those of the ward, or of `public_dir`."""
    public_dir: str | None = None
    """A folder of public sets for what notes cannot give (preferences, exams, safety); default: the ward."""
    quasi: tuple[str, ...] = ()
    """Fields of the notes that are generalised until `k` patients share each combination."""
    k: Annotated[int, Field(ge=2)] = 5
    sample: int = Field(default=0, ge=0)
    """De-identified notes drawn for reading, on the key's side."""
    canaries: int = Field(default=0, ge=0)
    """Invented identifiers planted in the raw notes; the evaluation `memorisation` looks for them."""
    workers: Positive = 1
    """Processes that look for identifiers."""
    research_only: bool = False
    """Whether the hospital's own terms forbid any use but research."""


class Data(StageConfig):
    """The records of the run: generated (`--data ward`), imported (`--data public --data-dir DIR`), or made from a
    hospital's notes (`--data notes`)."""

    stage: Literal["data"] = "data"
    ward: dict[str, int | float] = {}
    """Counts and shares of the generated ward that differ from its defaults (data/ward/build.py)."""
    public: PublicSizes = PublicSizes()
    notes: HospitalNotes | None = None


class Pretrain(Training):
    """Continued pre-training on documents."""

    stage: Literal["pretrain"] = "pretrain"
    data: str = "documents"
    domain: Literal["all", "medical", "general"] = "all"
    """Which documents are read: all, or those of one domain."""


class TinyModel(Config):
    """The embedded model: random weights, a tokenizer trained on the run's own text."""

    shape: Literal["llama", "qwen2", "qwen3", "mistral"] = "llama"
    hidden_size: Positive = 192
    num_layers: Positive = 4
    num_heads: Positive = 6
    vocab_size: Positive = 4096
    max_seq_len: Positive = 1024
    seed: int = 0
    pretrain: Pretrain | None = None
    """How the random model is made into a stand-in for the recipe's base, on the run's own documents."""

    @model_validator(mode="after")
    def _even_heads(self) -> TinyModel:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of 2 x num_heads ({self.num_heads})")
        return self


class Base(Config):
    """The model a recipe starts from: a transformers folder, or the embedded tiny one."""

    name: str = "embedded tiny model"
    path: str | None = None
    """A transformers folder on disk (safetensors)."""
    template: Template = "chatml"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one. cuda: refuse to start without. cpu: leave GPUs alone."""
    tiny: TinyModel | None = None
    full_shape: FullShape | None = None


class Sft(Training):
    """Supervised fine-tuning on conversations; loss on assistant turns only."""

    stage: Literal["sft"] = "sft"
    data: str = "conversations"
    general_share: Share
    """Share of general conversations in the rows of training. 0 must be written."""


class Sample(StageConfig):
    """k answers to each question."""

    stage: Literal["sample"] = "sample"
    from_: str = Field(default="sft", alias="from")
    questions: str = "questions/train"
    limit: Positive | None = None
    num_answers: Positive = 4
    decoding: Decoding = Decoding(temperature=1.0)


class Score(StageConfig):
    """A score for each sampled answer, with its source."""

    stage: Literal["score"] = "score"
    from_: str = Field(default="sample", alias="from")
    scorer: Literal["rule", "llm", "local", "human"] = "rule"
    url: str | None = None
    """OpenAI-style address of the judge, for scorer llm."""
    model: str | None = None
    """The judge: a name at `url` for scorer llm, a model folder for scorer local."""
    file: str | None = None
    """JSONL of what humans said: rollouts with their scores, or rankings (for scorer human: rollouts). Beside another
    scorer it makes a mixture: theirs where there is one, the scorer's elsewhere, each with its source."""
    margin: float = Field(default=0.05, ge=0)
    """Scores nearer than this are a tie when rankings are made."""


Half = Literal["all", "first", "second"]


class LabelNoise(Config):
    """Wrong labels planted on purpose (data/preference_sets.py): how much noise does a reward model stand?"""

    share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of wrong labels of one rater on average; raters err at rates from 0 to twice that."""
    raters: Positive = 5
    votes: Positive = 3
    """Raters who label each pair."""
    settle: Literal["first", "majority", "weighted"] = "first"
    """first: one vote is the label. weighted: Dawid and Skene 1979, raters weighed by how often they err."""


class Reward(Training):
    """A reward model: the backbone with one output, trained on rankings."""

    stage: Literal["reward"] = "reward"
    from_: str = Field(default="sft", alias="from")
    data: str = "preferences"
    """Preferences of the data stage, or the name of a `score` stage."""
    loss: Literal["listwise", "pairwise"] = "pairwise"
    """pairwise: mean of -log sigmoid over ordered pairs (arXiv:2203.02155). listwise: Plackett-Luce of the ranking."""
    ranks: Literal["all", "extremes"] = "all"
    """extremes: only the best and the worst answer of each ranking (accepted/rejected)."""
    half: Half = "all"
    """Train on one half of the rankings, so that a second reward model may judge what the first has shaped."""
    noise: LabelNoise | None = None
    """Train on one pair of each ranking with planted wrong labels; what it is examined with stays as it is."""


class BestOfN(Training):
    """Rejection sampling: n answers a question, the reward model keeps the best K, SFT on them; in rounds."""

    stage: Literal["best_of_n"] = "best_of_n"
    from_: str = Field(default="sft", alias="from")
    reward: str = "reward"
    questions: str = "questions/train"
    limit: Positive | None = None
    num_answers: Positive = 8
    keep: Positive = 1
    rounds: Positive = 1
    keep_best: bool = False
    """What was kept is the model's own; its likelihood on a few held-out answers of its own says little."""
    decoding: Decoding = Decoding(temperature=1.0)

    @model_validator(mode="after")
    def _keep_fewer(self) -> BestOfN:
        if self.keep > self.num_answers:
            raise ValueError(f"keep is {self.keep}, but only {self.num_answers} answers are sampled")
        return self


class Dpo(Training):
    """Direct preference optimisation (arXiv:2305.18290)."""

    stage: Literal["dpo"] = "dpo"
    from_: str = Field(default="sft", alias="from")
    data: str = "preferences"
    beta: float = Field(default=0.1, gt=0)
    pairs: Literal["all", "extremes"] = "extremes"
    half: Half = "all"
    sft_weight: float = Field(default=0.0, ge=0)
    """Weight of the negative log-likelihood of the chosen answer (arXiv:2404.19733)."""


class Policy(Training):
    """What PPO and GRPO share."""

    from_: str = Field(default="sft", alias="from")
    reward: str = "reward"
    """Stage of the reward model; `rule` for the ward's scorer; `length` for a bad reward, to see it stopped."""
    questions: str = "questions/train"
    iterations: Positive = 10
    prompts: Positive = 32
    """Questions of one iteration."""
    num_answers: Positive = 2
    inner_epochs: Positive = 1
    """Passes over the answers of one iteration."""
    decoding: Decoding = Decoding(temperature=1.0)
    clip_ratio: float = Field(default=0.2, gt=0)
    kl: float = Field(default=0.05, ge=0)
    """Weight of the KL to the model the stage starts from."""
    kl_target: float | None = Field(default=None, gt=0)
    """Mean KL per answer, in nats, that an adaptive weight steers to (arXiv:1909.08593); None keeps `kl` fixed."""
    max_kl: float = Field(default=50.0, gt=0)
    """Health rule: mean KL per answer, in nats, at which training stops."""
    min_entropy: float = Field(default=0.02, ge=0)
    max_ratio: float = Field(default=2.0, gt=1)
    """Health rule: typical ratio, exp(mean |log ratio|), of the policy to the one that gave the answers."""
    max_length_growth: float = Field(default=2.0, gt=1)
    """Health rule: growth of the mean answer length, against the first iteration, at which training stops."""
    max_length_correlation: float = Field(default=0.8, gt=0, le=1)
    """Health rule: correlation of score and length at which training stops once answers have grown by 30 %."""


class Ppo(Policy):
    """Proximal policy optimisation (arXiv:1707.06347) with a value head and GAE (arXiv:1506.02438)."""

    stage: Literal["ppo"] = "ppo"
    gamma: Share = 1.0
    gae_lambda: Share = 0.95
    value_clip: float = Field(default=0.2, gt=0)
    value_weight: float = Field(default=0.5, gt=0)
    value_warmup: int = Field(default=1, ge=0)
    """First iterations in which only the value model learns."""


class Grpo(Policy):
    """Group-relative policy optimisation (arXiv:2402.03300): the group's mean is the baseline."""

    stage: Literal["grpo"] = "grpo"
    num_answers: Positive = 8


class Evaluate(StageConfig):
    """The battery on each checkpoint, and paired comparisons."""

    stage: Literal["evaluate"] = "evaluate"
    checkpoints: tuple[str, ...]
    rewards: tuple[str, ...] = ()
    """Reward stages whose order of held-out answers is evaluated."""
    compare: tuple[tuple[str, str], ...] = ()
    """[new, old] pairs; "better" is said only where the paired interval excludes 0."""
    limit: Positive | None = None
    """Largest number of items of each evaluation."""
    decoding: Decoding = Decoding(temperature=0.0)
    evaluations: tuple[str, ...] = ()
    """Names of the evaluations to run; empty: all that the data allows."""
    exam_modes: tuple[Literal["logprob", "chat", "generate"], ...] = ("logprob", "chat", "generate")
    judge_url: str | None = None
    """OpenAI-style address of a judge for win rates; without one the rule scorer judges, if the data has one."""
    judge_model: str | None = None
    doctor_labels: str | None = None
    """JSONL of rankings with doctors' votes (`xinglin annotate export`): the judge is examined on them, and may be a
    headline only where it agrees with doctors as they do among themselves."""
    aligned: tuple[str, ...] = ()
    """Checkpoints whose alignment is compared side by side: gain, KL, length, diversity, cost."""
    reference: str = "sft"
    """What `aligned` started from, and their KL is measured to."""
    held_out_reward: str | None = None
    """A reward stage that shaped none of `aligned`."""
    canaries: str | None = None
    """The private list of planted identifiers, for `memorisation`; default: what the data stage planted, if it did."""

    @model_validator(mode="after")
    def _compare_evaluated(self) -> Evaluate:
        known = (*self.checkpoints, *self.rewards)
        unknown = [name for pair in self.compare for name in pair if name not in known]
        if unknown:
            raise ValueError(f"compare names {unknown[0]!r}, which is not among its checkpoints and rewards")
        lost = [name for name in (*self.aligned, self.reference) if name not in self.checkpoints]
        if self.aligned and lost:
            raise ValueError(f"aligned (or its reference) names {lost[0]!r}, which is not among its checkpoints")
        return self


class Export(StageConfig):
    """A merged model folder, verified by reload."""

    stage: Literal["export"] = "export"
    from_: str = Field(default="sft", alias="from")
    acknowledge_research_only: bool = False
    """Export although data of the run may be used for research alone."""


STAGES: dict[str, type[StageConfig]] = {
    "data": Data,
    "pretrain": Pretrain,
    "sft": Sft,
    "sample": Sample,
    "score": Score,
    "reward": Reward,
    "best_of_n": BestOfN,
    "dpo": Dpo,
    "ppo": Ppo,
    "grpo": Grpo,
    "evaluate": Evaluate,
    "export": Export,
}


class Recipe(Config):
    """A whole run."""

    name: str
    title: str = ""
    paper: str = ""
    base: Base = Base()
    stages: dict[str, StageConfig]
    tokens: dict[str, float] = {}
    """Tokens of one epoch of a stage at full scale, for the dry run."""
    provenance: dict[str, str] = {}
    """Value -> `published: <where>` or `assumed: <why>`."""
