"""How many leading blocks two models share bit for bit, so that they need to run only once."""

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig

from ft_audit.engine.models.load import UNREADABLE
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.weights.change import Replaced, same_bits
from ft_audit.engine.weights.evidence import TOKEN_KINDS, open_parts
from ft_audit.engine.weights.measure import CHUNK_ELEMENTS
from ft_audit.engine.weights.names import canonical, kind_of, layer_of
from ft_audit.engine.weights.parts import Part
from ft_audit.engine.weights.tensors import row_chunks
from ft_audit.errors import ModelError

# What a text model's configuration may say without any block computing otherwise.
SILENT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "id2label",
        "label2id",
        "pad_token_id",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "vocab_size",
    }
)
# Where the modules after the last block are called.
AFTER = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


def identical_blocks(base: ModelSource, tuned: ModelSource) -> int:
    """Return how many leading blocks compute the same bits from token ids of the base's vocabulary.

    Those whose tensors, and everything before them, are bit-identical, in models whose configurations ask for
    the same computation. Rows that a larger vocabulary adds do not count. Under an adapter every block below
    the first that it touches. Reads no further than the first difference.

    Raises:
        ModelError: files that cannot be read.
    """
    asked = _computation(base)
    if tuned.adapter is None and asked != _computation(tuned):
        return 0
    if asked.get("num_kv_shared_layers"):
        # Gemma 4's last blocks read the keys and values of earlier ones, which therefore have to run.
        return 0
    with open_parts(base, tuned) as parts:
        layers: dict[int, list[Part]] = {}
        before: list[Part] = []
        for part in parts:
            layer = layer_of(part.name)
            if layer is not None:
                layers.setdefault(layer, []).append(part)
            elif not _is_after(part.name):
                before.append(part)
        if not _all_same(before):
            return 0
        count = 0
        while count in layers and _all_same(layers[count]):
            count += 1
        return count


def _computation(source: ModelSource) -> dict[str, Any]:
    try:
        config: Any = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except UNREADABLE as error:
        raise ModelError(f"model {source.ref!r}: its config.json cannot be read: {error}") from error
    found = config.get_text_config().to_dict()
    return {key: value for key, value in found.items() if key not in SILENT}


def _is_after(name: str) -> bool:
    module = canonical(name).rpartition(".")[0]
    return kind_of(name) == "head" or module in AFTER


def _all_same(parts: Sequence[Part]) -> bool:
    return all(_same(part) for part in parts)


def _same(part: Part) -> bool:
    if part.missing or part.unread or part.base is None:
        return False
    if part.make is None:
        return True
    change = part.make()
    if not isinstance(change, Replaced):
        # An adapter's product is added in another sum, even where it is zero.
        return False
    ours, theirs = part.base, change.tuned
    longer = part.kind in TOKEN_KINDS and theirs.shape[0] > ours.shape[0]
    if (ours.shape[1], ours.dtype) != (theirs.shape[1], theirs.dtype):
        return False
    if ours.shape[0] != theirs.shape[0] and not longer:
        return False
    return all(
        same_bits(ours.rows(start, stop), theirs.rows(start, stop))
        for start, stop in row_chunks(ours.shape, CHUNK_ELEMENTS)
    )
