"""Small dictionaries written exactly as their publishers write them, each beside the publisher's arithmetic.

Where a publisher ships a package, the package writes and computes; elsewhere its description is written out
here, apart from the code under test.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

D, F, K = 16, 96, 7

Encode = Callable[[Tensor], Tensor]
Decode = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Published:
    """Where a dictionary was written, and what its publisher makes of activations."""

    path: Path
    weights: Path
    """The file with the tensors."""
    encode: Encode
    """x [T, D] to features [T, F]."""
    decode: Decode
    """Features [T, F] and x [T, D] to the reconstruction [T, O]."""


def draw(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Normal draws; what is called a threshold is positive, matrices have the size of a projection."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        made[name] = torch.randn(shape, generator=generator)
        if "thresh" in name:
            made[name] = made[name].abs() + 0.2
        elif len(shape) > 1:
            made[name] /= shape[-1] ** 0.25
    return made


def jump(pre: Tensor, threshold: Tensor | float) -> Tensor:
    return functional.relu(pre) * (pre > threshold)


def largest(pre: Tensor, k: int) -> Tensor:
    kept = functional.relu(pre).topk(k, dim=-1)
    return torch.zeros_like(pre).scatter_(-1, kept.indices, kept.values)


def layer_norm(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, spread = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return (x - mean) / (spread + 1e-5), mean, spread


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def gemma_2(
    place: str, point: str | None, out: str | None = None, *, affine: bool = False, topk: int | None = None
) -> Callable[[Path], Published]:
    def write(root: Path) -> Published:
        folder = root / "gemma-scope-2-1b-it" / place
        folder.mkdir(parents=True)
        t = draw(w_enc=(D, F), w_dec=(F, D), b_enc=(F,), b_dec=(D,), threshold=(F,))
        if affine:
            t |= draw(1, affine_skip_connection=(D, D))
        save_file(t, folder / "params.safetensors")
        if point is not None:
            config = {
                "hf_hook_point_in": point,
                "hf_hook_point_out": out or point,
                "width": F,
                "model_name": "google/gemma-3-1b-it",
                "architecture": "jump_relu",
                "l0": 60,
                "affine_connection": affine,
                "type": "transcoder" if out else "sae",
            }
            config |= {"architecture": "topk", "k": topk} if topk else {}
            write_json(folder / "config.json", config)

        def encode(x: Tensor) -> Tensor:
            fires = jump(x @ t["w_enc"] + t["b_enc"], t["threshold"])
            return fires if topk is None else largest(fires, topk)

        def decode(f: Tensor, x: Tensor) -> Tensor:
            y = f @ t["w_dec"] + t["b_dec"]
            return y + x @ t["affine_skip_connection"] if affine else y

        return Published(folder, folder / "params.safetensors", encode, decode)

    return write


def gemma_2_crosscoder(root: Path) -> Published:
    """As in the tutorial of the release: one encoder a layer, and a decoder from each to all of them."""
    layers, d, latents = 4, 8, 24
    folder = root / "gemma-scope-2-1b-pt" / "crosscoder" / "layer_7_13_17_22_width_65k_l0_medium"
    folder.mkdir(parents=True)
    shapes: dict[str, tuple[int, ...]] = {
        "w_enc": (d, latents),
        "w_dec": (latents, layers, d),
        "b_enc": (latents,),
        "b_dec": (d,),
        "threshold": (latents,),
    }
    parts = [draw(seed, **shapes) for seed in range(layers)]
    for i, part in enumerate(parts):
        save_file(part, folder / f"params_layer_{i}.safetensors")
    config = {
        "hf_hook_point_in": "model.layers.{7,13,17,22}.output",
        "hf_hook_point_out": "model.layers.{7,13,17,22}.output",
        "width": layers * latents,
        "model_name": "gemma-v3-1b-pt",
        "architecture": "jump_relu",
        "type": "crosscoder",
    }
    write_json(folder / "config.json", config)
    stacked = {name: torch.stack([part[name] for part in parts]) for name in shapes}

    def encode(x: Tensor) -> Tensor:
        by_layer = x.unflatten(1, (layers, d))
        pre = torch.einsum("tld,lds->tls", by_layer, stacked["w_enc"]) + stacked["b_enc"]
        return jump(pre, stacked["threshold"]).flatten(1)

    def decode(f: Tensor, x: Tensor) -> Tensor:
        by_layer = f.unflatten(1, (layers, latents))
        return (torch.einsum("tls,lsmd->tmd", by_layer, stacked["w_dec"]) + stacked["b_dec"]).flatten(1)

    return Published(folder, folder / "params_layer_0.safetensors", encode, decode)


def gemma_1(suite: str) -> Callable[[Path], Published]:
    def write(root: Path) -> Published:
        folder = root / f"gemma-scope-2b-pt-{suite}" / "layer_20" / "width_1k" / "average_l0_71"
        folder.mkdir(parents=True)
        t = draw(W_enc=(D, 1024), W_dec=(1024, D), b_enc=(1024,), b_dec=(D,), threshold=(1024,))
        np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in t.items()})
        return Published(
            folder,
            folder / "params.npz",
            lambda x: jump(x @ t["W_enc"] + t["b_enc"], t["threshold"]),
            lambda f, x: f @ t["W_dec"] + t["b_dec"],
        )

    return write


def lens(architecture: str, **settings: Any) -> Callable[[Path], Published]:
    """Made, saved and computed by SAELens."""

    def write(root: Path) -> Published:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sae_lens.registry import get_sae_class
            from sae_lens.saes.sae import SAE, SAEMetadata

            kind, config_class = get_sae_class(architecture)
            transcoder = "transcoder" in architecture
            metadata = SAEMetadata(
                model_name="google/gemma-2-2b",
                hook_name="blocks.5.mlp.hook_in" if transcoder else "blocks.5.hook_resid_post",
                **({"hook_name_out": "blocks.5.hook_mlp_out"} if transcoder else {}),
            )
            more = {"d_out": D, "apply_b_dec_to_input": False} if transcoder else {}
            config = config_class(d_in=D, d_sae=F, metadata=metadata, **{**more, **settings})
            sae: Any = kind(config)
            shapes = {name: tuple(value.shape) for name, value in sae.state_dict().items()}
            sae.load_state_dict(draw(3, **shapes))
            folder = root / "release" / "layer_5"
            sae.save_model(folder)
            back: Any = SAE.load_from_disk(folder) if not transcoder else kind.load_from_disk(folder)

        def encode(x: Tensor) -> Tensor:
            encoded: Tensor = back.encode(x).detach()
            return encoded

        def decode(f: Tensor, x: Tensor) -> Tensor:
            back.encode(x)  # it keeps the token's norm for decoding
            y: Tensor = back.decode(f).detach()
            return y + x @ back.W_skip.detach().T if "skip" in architecture else y

        return Published(folder, folder / "sae_weights.safetensors", encode, decode)

    return write


def sparse_coder(module: str, **settings: Any) -> Callable[[Path], Published]:
    """Made, saved and computed by sparsify."""

    def write(root: Path) -> Published:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sparsify import SparseCoder, SparseCoderConfig

        config = SparseCoderConfig(num_latents=F, k=K, **settings)
        coder: Any = SparseCoder(D, config)
        shapes = {name: tuple(value.shape) for name, value in coder.state_dict().items()}
        coder.load_state_dict(draw(4, **shapes))
        folder = root / "run" / module
        coder.save_to_disk(folder)
        write_json(root / "run" / "config.json", {"model": "EleutherAI/pythia-70m"})
        back: Any = SparseCoder.load_from_disk(folder)

        def encode(x: Tensor) -> Tensor:
            found = back.encode(x)
            zeros = torch.zeros(x.shape[0], F)
            return zeros.scatter_(1, found.top_indices, found.top_acts.detach())

        def decode(f: Tensor, x: Tensor) -> Tensor:
            kept = f.topk(K, dim=1)
            y: Tensor = back.decode(kept.values, kept.indices).detach()
            return y + x @ back.W_skip.detach().mT if back.W_skip is not None else y

        return Published(folder, folder / "sae.safetensors", encode, decode)

    return write


def trainer(dict_class: str) -> Callable[[Path], Published]:
    """dictionary_learning's ae.pt beside its trainer's config."""

    def write(root: Path) -> Published:
        folder = root / "resid_post_layer_12" / "trainer_3"
        folder.mkdir(parents=True)
        if dict_class in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
            t = draw(5, W_enc=(D, F), W_dec=(F, D), b_enc=(F,), b_dec=(D,), threshold=(F,))
            w_enc, w_dec, b_enc = t["W_enc"], t["W_dec"], t["b_enc"]
        else:
            shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "encoder.bias": (F,)}
            t = draw(5, **shapes, **{"decoder.weight": (D, F)}, b_dec=(D,))
            w_enc, w_dec, b_enc = t["encoder.weight"].T, t["decoder.weight"].T, t["encoder.bias"]
        b_dec = t["b_dec"]
        if dict_class == "AutoEncoder":
            t["bias"] = t.pop("b_dec")
        if "TopK" in dict_class:
            t |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.8)}
        torch.save(t, folder / "ae.pt")
        about = {"dict_class": dict_class, "dict_size": F, "activation_dim": D, "layer": 12, "k": K}
        about |= {"lm_name": "google/gemma-2-2b", "submodule_name": "resid_post_layer_12"}
        write_json(folder / "config.json", {"trainer": about, "buffer": {"ctx_len": 1024}})

        def encode(x: Tensor) -> Tensor:
            if dict_class == "JumpReluAutoEncoder":
                return jump(x @ w_enc + b_enc, t["threshold"])
            pre = (x - b_dec) @ w_enc + b_enc
            if dict_class == "AutoEncoderTopK":
                return largest(pre, K)
            return jump(pre, 0.8 if "BatchTopK" in dict_class else 0.0)

        return Published(folder, folder / "ae.pt", encode, lambda f, x: f @ w_dec + b_dec)

    return write


def fork(dict_class: str) -> Callable[[Path], Published]:
    """jkminder's dictionary_learning: safetensors by the hub's mixin, norms in the features, normalising."""

    def write(root: Path) -> Published:
        folder = root / "owner" / "resid_post_layer_13"
        folder.mkdir(parents=True)
        if dict_class == "JumpReluAutoEncoder":
            t = draw(6, W_enc=(D, F), W_dec=(F, D), b_enc=(F,), b_dec=(D,), threshold=(F,))
            norm = t["W_dec"].norm(dim=1)
            published = Published(
                folder,
                folder / "model.safetensors",
                lambda x: jump(x @ t["W_enc"] + t["b_enc"], t["threshold"]) * norm,
                lambda f, x: (f / norm) @ t["W_dec"] + t["b_dec"],
            )
        else:
            shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "decoder.weight": (D, F)}
            t = draw(6, **shapes, **{"encoder.bias": (F,)}, b_dec=(D,), activation_mean=(D,))
            spread = t["activation_mean"].abs() + 0.5
            scale = 3.0 / (spread.square().sum() + 1e-8).sqrt()
            mean = t["activation_mean"]
            t |= {"k": torch.tensor(K), "threshold": torch.tensor(0.6), "target_rms": torch.tensor(3.0)}
            t |= {"activation_std": spread, "activation_global_scale": scale}

            def encode(x: Tensor) -> Tensor:
                normed = (x - mean) * scale
                return jump((normed - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], 0.6)

            def decode(f: Tensor, x: Tensor) -> Tensor:
                return (f @ t["decoder.weight"].T + t["b_dec"]) / (scale + 1e-8) + mean

            published = Published(folder, folder / "model.safetensors", encode, decode)
        save_file(t, folder / "model.safetensors")
        write_json(folder / "config.json", {"activation_dim": D, "dict_size": F, "dict_class": dict_class})
        return published

    return write


def openai(activation: str) -> Callable[[Path], Published]:
    def write(root: Path) -> Published:
        path = root / "gpt2-small" / "resid_delta_mlp_v5_32k" / "autoencoders" / "8.pt"
        path.parent.mkdir(parents=True)
        shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "decoder.weight": (D, F)}
        t = draw(7, **shapes, pre_bias=(D,), latent_bias=(F,))
        settings = {"k": K, "postact_fn": "ReLU"} if activation == "TopK" else {}
        torch.save({**t, "activation": activation, "activation_state_dict": settings}, path)

        def encode(x: Tensor) -> Tensor:
            if activation == "TopK":
                x = layer_norm(x)[0]
            pre = (x - t["pre_bias"]) @ t["encoder.weight"].T + t["latent_bias"]
            return largest(pre, K) if activation == "TopK" else functional.relu(pre)

        def decode(f: Tensor, x: Tensor) -> Tensor:
            y = f @ t["decoder.weight"].T + t["pre_bias"]
            _, mean, spread = layer_norm(x)
            return y * spread + mean if activation == "TopK" else y

        return Published(path, path, encode, decode)

    return write


def llama_scope(root: Path) -> Published:
    folder = root / "Llama3_1-8B-Base-L15R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "decoder.weight": (D, F)}
    t = draw(8, **shapes, **{"encoder.bias": (F,), "decoder.bias": (D,)})
    save_file(t, folder / "checkpoints" / "final.safetensors")
    config = {
        "act_fn": "jumprelu",
        "d_model": D,
        "d_sae": F,
        "dataset_average_activation_norm": {"in": 10.8125, "out": 10.8125},
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "jump_relu_threshold": 1.5,
        "sparsity_include_decoder_norm": True,
        "top_k": 50,
    }
    write_json(folder / "hyperparams.json", config)
    scale = D**0.5 / 10.8125
    norm = t["decoder.weight"].norm(dim=0)

    def encode(x: Tensor) -> Tensor:
        # Features in the unit of training, held against the threshold in that of the residual stream.
        pre = (x * scale) @ t["encoder.weight"].T + t["encoder.bias"]
        return jump(pre * norm, 1.5 * scale)

    def decode(f: Tensor, x: Tensor) -> Tensor:
        return ((f / norm) @ t["decoder.weight"].T + t["decoder.bias"]) / scale

    return Published(folder, folder / "checkpoints" / "final.safetensors", encode, decode)


def qwen_scope(root: Path) -> Published:
    path = root / f"SAE-Res-Qwen3-1.7B-Base-W1K-L0_{K}" / "layer4.sae.pt"
    path.parent.mkdir(parents=True)
    t = draw(9, W_enc=(1024, D), W_dec=(D, 1024), b_enc=(1024,), b_dec=(D,))
    torch.save(t, path)
    return Published(
        path,
        path,
        lambda x: largest(x @ t["W_enc"].T + t["b_enc"], K),
        lambda f, x: f @ t["W_dec"].T + t["b_dec"],
    )
