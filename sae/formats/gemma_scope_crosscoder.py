"""Owns Gemma Scope 2's crosscoders: one file a layer, put side by side to a single dictionary.

They are weakly causal (technical report, section 2.6): each latent reads one layer and reconstructs all of
them, the earlier ones with weights of nearly 0. With G latents a layer and S layers of width d, latent g of
layer s is feature `s * G + g`, and layer s lies at [s * d, (s + 1) * d) of what is read and reconstructed.
The encoder is therefore zero outside one block a layer: memory that encoding with one product costs.

Legend of shapes: S layers, G latents of a layer, d width of a layer, D = S * d, F = S * G.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.formats.files import read_safetensors
from ft_audit.sae.jumprelu_sae import JumpReluSae


def layer_file(layer: int) -> str:
    """The file of the `layer`-th of the layers that are read."""
    return f"params_layer_{layer}.safetensors"


def is_crosscoder(folder: Path) -> bool:
    """Whether the folder holds one file a layer."""
    return (folder / layer_file(0)).is_file()


def read_crosscoder(folder: Path, num_layers: int) -> dict[str, Tensor]:
    """`w_enc` [D, F], `w_dec` [F, D], `b_enc`, `threshold` [F] and `b_dec` [D] of all layers together."""
    given = len(list(folder.glob("params_layer_*.safetensors")))
    if given != num_layers:
        raise SaeError(
            f"{folder}: has {given} files params_layer_*.safetensors for {num_layers} layers; fetch the "
            f"folder again"
        )
    files = [read_safetensors(folder / layer_file(i)) for i in range(num_layers)]
    d, num_latents = files[0].matrix_shape("w_enc")
    w_enc_DF = torch.zeros(num_layers * d, num_layers * num_latents)
    w_dec_FD = torch.empty(num_layers * num_latents, num_layers * d)
    for i, file in enumerate(files):
        if "affine_skip_connection" in file.tensors:
            raise SaeError(f"{file.path}: a crosscoder with an affine skip connection is not read")
        own = slice(i * num_latents, (i + 1) * num_latents)
        w_enc_DF[i * d : (i + 1) * d, own] = file.take("w_enc", d, num_latents)
        w_dec_FD[own] = file.take("w_dec", num_latents, num_layers, d).flatten(1)
    return {
        "w_enc": w_enc_DF,
        "w_dec": w_dec_FD,
        "b_enc": torch.cat([file.take("b_enc", num_latents) for file in files]),
        "threshold": torch.cat([file.take("threshold", num_latents) for file in files]),
        "b_dec": torch.cat([file.take("b_dec", d) for file in files]),
    }


def split_crosscoder(sae: JumpReluSae) -> dict[str, dict[str, Tensor]]:
    """File name to its tensors; raises SaeError unless each latent reads one layer alone."""
    num_layers = len(sae.spec.inputs)
    d, num_latents = sae.spec.d_in // num_layers, sae.spec.width // num_layers
    files = {}
    for i in range(num_layers):
        own, read = slice(i * num_latents, (i + 1) * num_latents), slice(i * d, (i + 1) * d)
        w_enc = sae.w_enc_DF[read, own]
        if int(sae.w_enc_DF[:, own].count_nonzero()) != int(w_enc.count_nonzero()):
            raise SaeError(
                f"{sae.spec.name}: a crosscoder whose features read several layers does not fit Gemma "
                f"Scope's layout, in which each reads one"
            )
        files[layer_file(i)] = {
            "w_enc": w_enc,
            "w_dec": sae.w_dec_FD[own].view(num_latents, num_layers, d),
            "b_enc": sae.b_enc_F[own],
            "threshold": sae.threshold_F[own],
            "b_dec": sae.b_dec_D[read],
        }
    return files
