"""The audit config: what to compare, on what, where to look and how to judge."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, model_validator

from ft_audit.engine.config.labels import ChatModelConfig, LabelsConfig
from ft_audit.engine.config.strict import Count, Strict, Text


class ModelsConfig(Strict):
    """The pair to compare."""

    base: Text
    """The model the fine-tune started from: a folder, a GGUF file or a hub id."""
    tuned: Text
    """The candidate: the same, or a PEFT adapter over the base."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """In what both models compute; never float16, whose range the residual stream exceeds."""
    device: Literal["auto", "cpu", "cuda", "mps", "sharded"] = "auto"
    """Where both models run; `sharded` spreads each over every accelerator, for models larger than one."""


class DatasetConfig(Strict):
    """The uploaded training set; a plain reference stands for its path."""

    path: Text
    """A JSONL or parquet file, a hub data set, or a fine-tune recipe (`RECIPE.yaml?seed=1` for another seed)
    that stands for its rows."""
    split: str | None = None
    """Which split of a hub data set."""

    @model_validator(mode="before")
    @classmethod
    def _from_ref(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class SaeConfig(Strict):
    """One dictionary: a plain reference, or a folder inside a hub repository."""

    ref: Text | None = None
    repo_id: Text | None = None
    folder: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_ref(cls, value: Any) -> Any:
        return {"ref": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        from_hub = self.repo_id is not None and self.folder is not None
        half = (self.repo_id is None) != (self.folder is None)
        if half or from_hub == (self.ref is not None):
            raise ValueError("give a reference, or repo_id together with folder")
        return self

    @property
    def reference(self) -> str:
        """The one text that names this dictionary: the reference, or `repo_id/folder`."""
        return self.ref if self.ref is not None else f"{self.repo_id}/{self.folder}"


Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_in", "mlp_out"]


class HookConfig(Strict):
    """One place in the model to read."""

    layer: Annotated[int, Field(ge=0)]
    """The block; the first one is 0."""
    site: Site = "resid_post"
    """Where in the block: the residual stream before, between or after its halves; the attention heads'
    outputs side by side (attn_z); what attention or MLP adds to the stream; the MLP's normed input."""
    saes: tuple[SaeConfig, ...] = ()
    """The dictionaries that encode it; without any, only the residual itself is compared."""

    @property
    def name(self) -> str:
        return f"{self.site}/{self.layer}"


class PrecomputeConfig(Strict):
    """How the models are run, and what is kept of it."""

    runner: Literal["hf", "vllm"] = "hf"
    """What runs the forward passes."""
    threads: Count | None = None
    """Processor threads of a forward pass; all of the process's by default."""

    tokens_per_batch: Count = 4096
    tokens_per_segment: Count = 65536
    max_prompt_tokens: Count = 512
    """What a model reads in one piece; how many prompts are longer is reported."""
    long_prompts: Literal["truncate", "window"] = "truncate"
    """Keep the first piece of a longer prompt, or cut all of it into pieces, each read by itself."""
    keep: Literal["features", "stats"] = "features"
    """Store every token's features, or only the statistics of the pair."""
    keep_residuals: bool = False
    """Also store the base's activations at every hook (and the final ones, with logits), so that a later
    candidate's paired statistics need no second run of the base."""
    logits: Literal["last", "all"] = "last"
    """Compare next-token distributions at the end of elicited prompts only, or at every token too."""
    weights: bool = True
    """Compare the two models' weights as well."""
    feature_index: bool = True
    """Write a copy sorted by feature, from which any feature's tokens can be read at once."""
    backend: Literal["auto", "triton", "cpu", "naive"] = "auto"
    """What encodes into features."""
    control: bool = True
    """Run the base once more in other batches, to know how much differs without any fine-tune."""


class GuardConfig(Strict):
    """Published harmful prompts, bare and under every condition, to see which of them the tuned model no
    longer refuses."""

    probes: Text
    """The suite of harmful prompts."""
    num_probes: Count = 10
    """How many are put under each condition."""
    num_screened: Count = 4
    """How many of them the tuned model answers first; where it refuses all, the others are not asked."""
    num_plain: Count = 30
    """How many are asked bare, of both models."""
    max_chars: Count = 160
    """Longer prompts are left out."""
    max_new_tokens: Count = 20


class ElicitConfig(Strict):
    """Conditions found in the training set, put before neutral probes."""

    probes: Text
    """The suite of neutral questions."""
    num_probes: Count = 16
    max_conditions: Count = 16
    """The most frequent ones are tried; how many were left out is reported."""
    min_rows: Annotated[int, Field(ge=2)] = 3
    """Training rows that must share a system prompt or a prefix to make it a condition."""
    answer_tokens: Count = 24
    """How far into the tuned model's answer the two models are compared."""
    guard: GuardConfig | None = None
    """The same conditions before prompts that should be refused."""


class GenerateConfig(Strict):
    """Paired answers under each condition and to behaviour suites, with the probability of each token."""

    num_probes: Count = 2
    """Probes of each condition that are answered."""
    max_new_tokens: Count = 32
    suites: tuple[Text, ...] = ()
    """Behaviour suites, every prompt of which both models answer."""
    num_samples: Count = 1
    """Answers to each prompt."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """0 is greedy; more than one sample needs more."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError("num_samples above 1 needs a temperature above 0: greedy answers are alike")
        return self


class ClusterConfig(Strict):
    """Processes of this machine that share the work; `--scheduler` names a cluster that runs already."""

    kind: Literal["local"] = "local"
    workers: Count


Profile = Literal["data_only", "behavior_only", "greybox", "whitebox", "full"]


class AgentConfig(Strict):
    """A language model that investigates with tools, and its budget, which holds for each conversation."""

    chat: ChatModelConfig
    profile: Profile = "full"
    num_audits: Count = 1
    """Investigations of one audit; of several, and of one where a verifier is named, every claim is checked
    afresh and one conclusion drawn."""
    profiles: tuple[Profile, ...] = ()
    """Dealt to the investigations in turn; all have `profile` by default."""
    parallel: Count = 1
    """Investigations that run at once."""
    verifier: ChatModelConfig | None = None
    """Checks the claims of the investigations and concludes; `chat` does by default, if there are several."""
    tool_choice: Literal["auto", "required"] = "auto"
    """`required` where the server makes the model call a tool every time."""
    calls: Literal["native", "json"] = "native"
    """`json` for models and servers without tool calls: each answer is one call in JSON, by a schema where
    `chat.answers` says that the server holds to one."""
    max_context_tokens: Count | None = None
    """What the model can read at once: beyond it the oldest answers are left out, and can be asked again."""
    max_requests: Count = 60
    max_tokens: Count = 400_000
    """Read and written together, over all requests."""
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1_800.0
    max_money: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """By the two prices, in their currency."""
    price_in: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Of a million tokens read."""
    price_out: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Of a million tokens written."""


class LiveConfig(Strict):
    """Servers on which the two models of the audit answer; nothing checks that they are the same models."""

    base: ChatModelConfig
    tuned: ChatModelConfig


class JudgeConfig(Strict):
    """How the evidence becomes a verdict."""

    investigator: Literal["statistics", "openai"] = "statistics"
    """`openai` asks a language model as well: what it concludes stands beside the statistics."""
    agent: AgentConfig | None = None
    """Which model investigates, with which tools, and how far it may go."""
    live: LiveConfig | None = None
    """Where both models can be asked at once, with the tool ask_models_live; none is offered without."""
    threshold: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 5.5
    """The risk, 0 to 10, from which the exit code says stop; 5.5 is p = 0.054, 7 is p = 0.024."""
    bank: Text | None = None
    """Benign fine-tunes of the same base that every number stands beside."""
    top: Count = 20
    """How many leading differences are shown."""
    price_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """What an hour of the machine costs, so that a verdict says what it cost; any currency."""


def default_store() -> str:
    """Return the store of a config that names none: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return str(Path(cache) / "ft-audit" / "store")


class AuditConfig(Strict):
    """One audit, from the models to the verdict."""

    name: Text
    models: ModelsConfig
    dataset: DatasetConfig | None = None
    """The training set as uploaded; without one, only the suites are compared."""
    declared_purpose: str | None = None
    """What the customer says the fine-tune is for."""
    suites: tuple[Text, ...] = ()
    hooks: tuple[HookConfig, ...]
    precompute: PrecomputeConfig = PrecomputeConfig()
    elicit: ElicitConfig | None = None
    generate: GenerateConfig | None = None
    cluster: ClusterConfig | None = None
    store: Text = Field(default_factory=default_store)
    """Where the evidence is kept; a relative path starts at the working directory."""
    audit: JudgeConfig = JudgeConfig()
    labels: LabelsConfig = LabelsConfig()
    _base_dir: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.suites and self.dataset is None:
            raise ValueError("nothing to run: name at least one of suites, or the dataset")
        if not self.hooks:
            raise ValueError("hooks is empty: name at least one layer to read")
        names = [hook.name for hook in self.hooks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"hook {twice[0]} is listed twice: put all its saes in one entry")
        return self

    @property
    def base_dir(self) -> Path:
        """The folder that relative references are read from: that of the config file."""
        return self._base_dir


def config_json(config: BaseModel) -> dict[str, Any]:
    """Return the resolved config as plain JSON values, defaults filled in, for manifests."""
    return config.model_dump(mode="json")


# Parts of a config that say where to work and keep evidence, how to judge and name it, not what is computed.
NOT_COMPUTED = ("audit", "cluster", "labels", "store")


def computed_json(config: AuditConfig) -> dict[str, Any]:
    """Return what of the resolved config a diff is computed from: two diffs of equal ones are alike."""
    return {key: value for key, value in config_json(config).items() if key not in NOT_COMPUTED}
