"""What a tensor's name says: its block, its part there, and how other versions of the model call it."""

import re

# Wrappers around the decoder, which differ between a text model, a model that also sees, and versions of
# transformers; the parts inside are called alike.
WRAPPERS = frozenset({"base_model", "model", "language_model", "transformer", "decoder", "gpt_neox"})
_LAYER = re.compile(r"(?:layers|h|blocks)\.(\d+)\.")
# Module names of Llama and its many relatives, then GPT-2's, GPT-NeoX's, OPT's and Mixtral's.
_KINDS = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "out_proj": "o",
    "attn.c_proj": "o",
    "attention.dense": "o",
    "self_attn.dense": "o",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
    "c_fc": "up",
    "mlp.c_proj": "down",
    "fc1": "up",
    "fc2": "down",
    "dense_h_to_4h": "up",
    "dense_4h_to_h": "down",
    "w1": "gate",
    "w2": "down",
    "w3": "up",
    "embed_tokens": "embed",
    "wte": "embed",
    "embed_in": "embed",
    "word_embeddings": "embed",
    "lm_head": "head",
    "embed_out": "head",
}


def canonical(name: str) -> str:
    """Return the tensor's name without the wrappers at its front: `layers.3.mlp.up_proj.weight`."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in WRAPPERS:
        parts = parts[1:]
    return ".".join(parts)


def layer_of(name: str) -> int | None:
    """Return the block of the language model that the tensor lies in, or None outside all of them."""
    found = _LAYER.match(canonical(name))
    return int(found[1]) if found else None


def kind_of(name: str) -> str:
    """Return the tensor's part: q, k, v, o, gate, up, down, embed, head, norm, or other."""
    # Stacked experts are parameters of their own, without a module whose `weight` they would be.
    module = re.sub(r"\[\d+\]$|\.(?:weight|bias)$", "", canonical(name))
    if module.startswith(("vision", "audio", "multi_modal", "visual")):
        return "other"
    last = module.rpartition(".")[2]
    if "norm" in last or re.fullmatch(r"ln_\w+", last):
        return "norm"
    for ending, kind in _KINDS.items():
        if module == ending or module.endswith(f".{ending}"):
            return kind
    return "other"
