"""Tokens that a direction promotes: read from the files alone, equal to what the families' formulas give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.labels import unembedding
from ft_audit.engine.labels.unembedding import token_effects
from ft_audit.engine.models.reference import resolve_model
from ft_audit.errors import ModelError

FAMILIES = {
    "llama": {},
    "gemma3_text": {"layer_types": ["full_attention"] * 4},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "hidden_size": 32},
}


@pytest.fixture
def model(
    request: pytest.FixtureRequest,
    make_model: Callable[..., Path],
    copy_model: Callable[..., Path],
    tmp_path: Path,
) -> tuple[str, Path]:
    """A random model whose final norm has a weight that matters."""
    family, tied = request.param
    plain = make_model(family, tie_word_embeddings=tied, **FAMILIES[family])

    def shake(tensors: dict[str, Any]) -> None:
        generator = torch.Generator().manual_seed(3)
        for name, tensor in tensors.items():
            if name.endswith(("model.norm.weight", "ln_f.weight")):
                tensors[name] = torch.rand(tensor.shape, generator=generator) * 2
                return
        raise AssertionError(f"no final norm among {sorted(tensors)}")

    return family, copy_model(plain, tmp_path / family, weights=shake)


def expected(family: str, folder: Path, direction_FD: torch.Tensor) -> torch.Tensor:
    """The effect on every token [F, V], as each family's published formula has it."""
    from transformers import AutoModelForCausalLM

    causal: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    head_VD = causal.get_output_embeddings().weight.detach()
    norm = causal.transformer.ln_f if family == "gpt2" else causal.model.norm
    gain_D = norm.weight.detach() + (1.0 if family == "gemma3_text" else 0.0)
    if family == "gpt2":
        direction_FD = direction_FD - direction_FD.mean(1, keepdim=True)
    effect_FV: torch.Tensor = (direction_FD * gain_D) @ head_VD.T
    return effect_FV - effect_FV.mean(1, keepdim=True)


@pytest.mark.parametrize("rows", [1, 64, 1 << 20])
@pytest.mark.parametrize(
    "model", [(family, tied) for family in FAMILIES for tied in (False, True)], indirect=True
)
def test_the_files_give_what_the_formula_gives(
    model: tuple[str, Path], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, folder = model
    monkeypatch.setattr(unembedding, "ROW_ELEMENTS", rows * 32)
    direction_FD = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    found = token_effects(resolve_model(str(folder), folder.parent), direction_FD, 400, 6)
    effect_FV = expected(family, folder, direction_FD)
    high, low = effect_FV.topk(6, dim=1), effect_FV.topk(6, dim=1, largest=False)
    torch.testing.assert_close(found.promoted_effect_FK, high.values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.suppressed_effect_FK, low.values, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.promoted_FK, high.indices)
    assert torch.equal(found.suppressed_FK, low.indices)


def test_rows_that_no_token_uses_are_not_named(make_model: Callable[..., Path]) -> None:
    folder = make_model()
    direction_FD = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    found = token_effects(resolve_model(str(folder), folder.parent), direction_FD, 50, 10)
    assert int(found.promoted_FK.max()) < 50 and int(found.suppressed_FK.max()) < 50


def test_a_checkpoint_without_its_head_is_refused(
    make_model: Callable[..., Path], copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copy_model(make_model(), tmp_path / "headless", weights=lambda t: t.pop("lm_head.weight"))
    with pytest.raises(ModelError, match="no head of width 32"):
        token_effects(resolve_model(str(folder), tmp_path), torch.ones(1, 32), 400, 3)
