"""Dictionaries that nothing was trained for, against which a sparse autoencoder's share in detection is held.

Shapes: T tokens, D width of the hook, F features.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ft_audit.agent.summary import Untrained, read_untrained
from ft_audit.engine.config import AuditConfig
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.precompute import run_precompute
from ft_audit.engine.runners.activations import read_text, stream_activations
from ft_audit.engine.store import Store
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.sae.digest import hashed
from ft_audit.sae.formats.gemma_scope import PARAMS_FILE, save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.load import load_sae

UNTRAINED = 1  # raised whenever these dictionaries, or what is measured with them, would be others
NUM_TOKENS = 6_000
"""Of the base over the audit's own suites: principal directions and thresholds come from them."""


def make_untrained(audit: AuditConfig, folder: Path, seed: int = 0) -> list[Path]:
    """Write a random and a principal-direction dictionary beside the audit's first, and return their folders.

    Both read what the audit's dictionary reads and fire as often in all, each feature equally often. The
    random one has as many features; there are no more than 2 D principal directions with their signs.

    Raises:
        DataError: the suites hold too few tokens.
    """
    made = [folder / name for name in ("random", "principal")]
    # A dictionary's tensors are written last.
    if all((path / PARAMS_FILE).exists() for path in made):
        return made
    hook = audit.hooks[0]
    sae = load_sae(hook.saes[0].reference, audit.base_dir)
    source = resolve_model(audit.models.base, audit.base_dir)
    text = read_text(source, audit.suites, audit.base_dir, NUM_TOKENS, seed)
    x_TD = torch.cat(list(stream_activations(text, source, hook.layer)))
    per_token = Encoder(sae.weights("cpu")).encode(x_TD).l0
    generator = torch.Generator().manual_seed(seed)
    random_FD = torch.randn(sae.spec.width, sae.spec.d_in, generator=generator)
    for path, rows_FD in zip(made, (random_FD, principal_directions(x_TD)), strict=True):
        save_gemma_scope(path, untrained(path.name, sae, rows_FD, x_TD, per_token), {})
    return made


def principal_directions(x_TD: Tensor) -> Tensor:
    """Return the principal directions of activations, each with both signs [2 D, D]."""
    _, _, rows_DD = torch.linalg.svd(x_TD - x_TD.mean(0), full_matrices=False)
    return torch.cat([rows_DD, -rows_DD])


def untrained(name: str, like: JumpReluSae, rows_FD: Tensor, x_TD: Tensor, per_token: float) -> JumpReluSae:
    """Return the dictionary whose features read the rows' directions from the mean, `per_token` at once.

    A feature's threshold is the quantile of its own activations at which it fires on `per_token` / F of the
    tokens.
    """
    unit_FD = torch.nn.functional.normalize(rows_FD, dim=1).bfloat16().float()
    mean_D = x_TD.mean(0)
    bias_F = -(unit_FD @ mean_D)
    share = per_token / len(unit_FD)
    threshold_F = torch.quantile(x_TD @ unit_FD.T + bias_F, 1 - share, dim=0).clamp(min=1e-6)
    spec = replace(like.spec, name=name, width=len(unit_FD), l0=per_token)
    return hashed(
        replace(
            like,
            spec=spec,
            w_enc_DF=unit_FD.T.contiguous(),
            w_dec_FD=unit_FD,
            b_enc_F=bias_F,
            b_dec_D=mean_D,
            threshold_F=threshold_F,
            apply_b_dec_to_input=False,
        )
    )


def untrained_evidence(config: AuditConfig, folders: Sequence[Path]) -> dict[str, Untrained]:
    """Return what each dictionary shows of one candidate, on chats and on training rows."""
    hook = config.hooks[0]
    raw = config.model_dump(mode="json")
    raw["hooks"] = [
        {"layer": hook.layer, "site": hook.site, "saes": [str(path.resolve()) for path in folders]}
    ]
    raw |= {"elicit": None, "generate": None}
    raw["precompute"] |= {"logits": "last"}
    bare = AuditConfig.model_validate_json(json.dumps(raw))
    bare._base_dir = config.base_dir
    done = run_precompute(bare, progress=False)
    diff = Store(done["store"]).open_diff(done["diff_id"])
    # A diff scores training rows by the first of its dictionaries.
    return {path.name: read_untrained(diff, path.name, rows=path == folders[0]) for path in folders}
