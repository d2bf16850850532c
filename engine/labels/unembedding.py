"""Which tokens a direction of the residual stream promotes and suppresses: through final norm and head.

The "logit lens" on a decoder direction (nostalgebraist 2020; Dar et al. 2023, arXiv 2209.02535): what one
unit of the direction adds to each token's logit, but for the factor that the norm of the token's own residual
gives, and before any cap on logits.

Legend of shapes: F directions, D width, V vocabulary, R rows of the head read at once, K tokens kept.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig

from ft_audit.engine.labels.final_norm import final_norm
from ft_audit.engine.models.anatomy import outline
from ft_audit.engine.models.load import UNREADABLE
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.weights.names import kind_of
from ft_audit.engine.weights.tensors import Matrix, Tensors, checkpoint_files, row_chunks
from ft_audit.errors import ModelError

ROW_ELEMENTS = 1 << 24
# Sites whose directions the head would read; another's lies in a space of its own.
RESIDUAL_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


class TokenEffects(NamedTuple):
    """Of each direction the tokens it moves most, up and down, and by how much; strongest first."""

    promoted_FK: Tensor
    promoted_effect_FK: Tensor
    suppressed_FK: Tensor
    suppressed_effect_FK: Tensor


def token_effects(model: ModelSource, direction_FD: Tensor, vocab_size: int, num_tokens: int) -> TokenEffects:
    """Return the `num_tokens` tokens below `vocab_size` whose logits each direction raises and lowers most.

    Effects are relative to their mean over the vocabulary, which a softmax does not see. The head is read
    from the safetensors in chunks of rows; no model is loaded.

    Raises:
        ModelError: a head or final norm that is not where the architecture has it, or that does not fit.
    """
    with Tensors(checkpoint_files(model.folder, model.ref), model.ref) as tensors:
        try:
            config = AutoConfig.from_pretrained(model.folder, trust_remote_code=False)
        except UNREADABLE as error:
            raise ModelError(f"model {model.ref!r}: cannot be loaded: {error}") from error
        anatomy = outline(config)
        head = _head(tensors, anatomy.width, bool(getattr(config, "tie_word_embeddings", True)))
        seen_FD = final_norm(anatomy, tensors)(direction_FD.float())
        return _stream(head, seen_FD, min(vocab_size, head.shape[0]), num_tokens)


def _head(tensors: Tensors, width: int, tied: bool) -> Matrix:
    wanted = ("embed",) if tied else ("head",)
    for name in tensors.names():
        if kind_of(name) in wanted and name.endswith("weight"):
            for matrix in tensors.matrices(name):
                if matrix.shape[1] == width and not matrix.is_vector and matrix.is_float:
                    return matrix
    raise ModelError(
        f"model {tensors.ref!r}: its safetensors hold no {'embedding' if tied else 'head'} of width {width}, "
        "so nothing tells which tokens a feature promotes; save the whole model again"
    )


def _stream(head: Matrix, seen_FD: Tensor, vocab_size: int, k: int) -> TokenEffects:
    num, k = seen_FD.shape[0], min(k, vocab_size)
    high_FK, low_FK = (seen_FD.new_empty((num, 0)) for _ in range(2))
    high_id_FK, low_id_FK = (torch.empty((num, 0), dtype=torch.int64) for _ in range(2))
    sum_F = torch.zeros(num, dtype=torch.float64)
    for start, stop in row_chunks((vocab_size, head.shape[1]), ROW_ELEMENTS):
        effect_FR = seen_FD @ head.rows(start, stop).float().T
        sum_F += effect_FR.double().sum(1)
        id_FR = torch.arange(start, stop).expand(num, -1)
        high_FK, high_id_FK = _keep(high_FK, high_id_FK, effect_FR, id_FR, k, largest=True)
        low_FK, low_id_FK = _keep(low_FK, low_id_FK, effect_FR, id_FR, k, largest=False)
    mean_F1 = (sum_F / vocab_size).float()[:, None]
    return TokenEffects(high_id_FK, high_FK - mean_F1, low_id_FK, low_FK - mean_F1)


def _keep(
    kept_FK: Tensor, kept_id_FK: Tensor, effect_FR: Tensor, id_FR: Tensor, k: int, *, largest: bool
) -> tuple[Tensor, Tensor]:
    value_FS = torch.cat([kept_FK, effect_FR], 1)
    id_FS = torch.cat([kept_id_FK, id_FR], 1)
    top = value_FS.topk(min(k, value_FS.shape[1]), dim=1, largest=largest)
    return top.values, id_FS.gather(1, top.indices)
