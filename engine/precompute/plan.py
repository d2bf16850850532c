"""A checked job and its runs: everything that can be known before any weights are loaded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ft_audit.engine.config import AuditConfig, HookConfig
from ft_audit.engine.precompute.dictionaries import open_dictionary
from ft_audit.engine.precompute.generations import behaviour_suites
from ft_audit.engine.precompute.guard import guard_probes
from ft_audit.engine.precompute.identity import EVIDENCE, device_class, versions
from ft_audit.engine.precompute.models import ModelPair, open_pair
from ft_audit.engine.precompute.suites import JobSuites, open_suites
from ft_audit.engine.store import HookEntry, SaeEntry, Store, content_id
from ft_audit.engine.suites.load import load_suite
from ft_audit.errors import ConfigError, ModelError, SaeError
from ft_audit.kernels.jumprelu import arithmetic, resolve_backend
from ft_audit.sae.jumprelu_sae import JumpReluSae

DIFF = 4  # raised whenever the same runs would give other figures
TABLES = 3  # raised whenever they would give other columns


@dataclass(frozen=True, slots=True)
class Job:
    """A checked job: nothing has run yet, and every mistake that can be known has been reported."""

    config: AuditConfig
    store: Store
    models: ModelPair
    saes: tuple[JumpReluSae, ...]
    hooks: tuple[HookEntry, ...]
    suites: JobSuites
    machine: "Machine"
    questions: tuple[str, ...]
    """Hashes of the suites that both models answer: behaviour, and the guard's harmful probes."""

    @property
    def backend(self) -> str:
        """What encodes and adds up features."""
        return self.machine.backend


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the place where a job runs decides the bytes that it leaves."""

    device_class: str
    backend: str
    encoders: tuple[str, ...]
    """What the bits that each dictionary's encoder writes depend on beside its inputs."""
    versions: dict[str, str]


def open_job(config: AuditConfig, machine: Machine | None = None) -> Job:
    """Return the checked job of a config; hashes files and tokenises, but loads no weights.

    With a `machine`, the models run there and not in this process.

    Raises:
        ConfigError, DataError, ModelError, SaeError: the config cannot be run; the message names the fix.
    """
    store = Store(config.store)
    if machine is None and config.precompute.threads is not None:
        torch.set_num_threads(config.precompute.threads)
    models = open_pair(config, torch.device("cpu") if machine is not None else None)
    _check_layers(config, models)
    saes = tuple(
        open_dictionary(config, hook, ref.reference, models) for hook in config.hooks for ref in hook.saes
    )
    _check_names(saes)
    hooks = tuple(_hook_entry(hook, saes) for hook in config.hooks)
    suites = open_suites(config, models.base_tokenizer, models.longest)
    _check_tokens(models, suites)
    questions = tuple(suite.suite.sha256 for suite in behaviour_suites(config, models))
    questions += (guard_probes(config).sha256,) if config.elicit and config.elicit.guard else ()
    return Job(
        config, store, models, saes, hooks, suites, machine or _this_machine(config, models, saes), questions
    )


def _this_machine(config: AuditConfig, models: ModelPair, saes: Sequence[JumpReluSae]) -> Machine:
    backend = resolve_backend(config.precompute.backend, models.device)
    encoders = tuple(_arithmetic(sae, backend, config.models.dtype, models) for sae in saes)
    return Machine(device_class(models.device), backend, encoders, versions(config.precompute.runner))


def _arithmetic(sae: JumpReluSae, backend: str, residual_dtype: str, models: ModelPair) -> str:
    if sae.topk is not None:
        return f"{backend} topk, float32 products"
    # The product is in bfloat16 where both of its sides are.
    both = residual_dtype == "bfloat16" and sae.encoder_dtype() == torch.bfloat16
    product = torch.bfloat16 if both else torch.float32
    return arithmetic(backend, models.device, sae.spec.d_in, sae.spec.width, product)


def _check_layers(config: AuditConfig, models: ModelPair) -> None:
    count = int(models.base_shape.num_hidden_layers)
    for hook in config.hooks:
        if hook.layer >= count:
            raise ConfigError(
                f"hooks: layer {hook.layer} does not exist in {models.base.ref!r}, which has blocks 0 to "
                f"{count - 1}; change hooks.layer"
            )


def _check_names(saes: Sequence[JumpReluSae]) -> None:
    # Everything of a dictionary is stored and shown under its name.
    name, times = Counter(sae.spec.name for sae in saes).most_common(1)[0] if saes else ("", 0)
    if times > 1:
        raise SaeError(
            f"hooks: {times} dictionaries are called {name!r}; list each once, or give them different names "
            "(`name` in their config.json, else the folder's name)"
        )


def _check_tokens(models: ModelPair, suites: JobSuites) -> None:
    for suite in suites.suites:
        largest = int(suite.tokens.ids_T.max())
        if largest >= models.shared_vocabulary:
            side = "base" if models.base_shape.vocab_size <= models.tuned_shape.vocab_size else "tuned"
            source = models.base if side == "base" else models.tuned
            raise ModelError(
                f"models.{side} {source.ref!r} has embeddings for {models.shared_vocabulary} tokens only, "
                f"but suite {suite.name!r} holds token {largest} "
                f"({models.base_tokenizer.convert_ids_to_tokens(largest)!r}) of the base's tokenizer; give a "
                "checkpoint with the whole vocabulary"
            )


def _hook_entry(hook: HookConfig, saes: tuple[JumpReluSae, ...]) -> HookEntry:
    own = [s.spec for s in saes if (s.spec.layer, s.spec.site) == (hook.layer, hook.site)]
    entries = [
        SaeEntry(
            name=s.name, width=s.width, sha256=s.sha256, writes=s.outputs if s.outputs != (hook.name,) else ()
        )
        for s in own
    ]
    return HookEntry(name=hook.name, layer=hook.layer, site=hook.site, saes=entries)


def protocol(job: Job) -> str:
    """Return the hash of how figures are taken: two diffs with the same one can stand beside each other."""
    config, elicit = job.config, job.config.elicit
    settings = elicit.model_dump(mode="json", exclude={"probes": True, "guard": {"probes"}}) if elicit else {}
    return content_id(
        {
            "evidence": EVIDENCE,
            "diff": DIFF,
            "dtype": config.models.dtype,
            "suites": [s.tokens.suite.sha256 for s in job.suites.suites if s.role == "chat"],
            "probes": elicit and load_suite(elicit.probes, config.base_dir).sha256,
            "guard": elicit and elicit.guard and guard_probes(config).sha256,
            "elicit": settings,
            "max_prompt_tokens": config.precompute.max_prompt_tokens,
        }
    )
