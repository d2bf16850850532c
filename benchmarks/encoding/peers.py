"""Owns the peers of the encode benchmark: other libraries' encoders as they ship, each with a reader.

Each is given the same weights and may split the tokens into calls of `chunk` rows, as its users do.
Shapes: T tokens, N entries, D width of the residual stream, F features.
"""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ft_audit.benchmarks.encoding.way import Entries, Operands, Result, Way, WayMissing, read_parts

Build = Callable[[Operands, int, int], Way]
SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def _library(module: str, package: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what it or its own dependencies are told
            return import_module(module)
    except ImportError as error:
        raise WayMissing(
            f"{package} is not installed or cannot be imported ({error}); see `make bench`"
        ) from error


def _in_chunks(chunk: int, one: Callable[[Tensor, int], tuple[Tensor, ...]]) -> Callable[[Tensor], Result]:
    """Runs `one(rows, number of the first)` over the tokens, `chunk` at a time."""

    def encode(x_TD: Tensor) -> Result:
        starts = range(0, x_TD.shape[0], chunk)
        return [one(x_TD[start : start + chunk], start) for start in starts]

    return encode


def saelens(operands: Operands, chunk: int, dtype: torch.dtype, *, tf32: bool = False) -> Way:
    """SAELens' JumpReLUSAE.encode, then nonzero and a gather of the values."""
    library = _library("sae_lens.saes.jumprelu_sae", "sae-lens")
    weights = operands.weights
    # On `meta` nothing is allocated: a decoder is never read here, and initialising one takes seconds.
    config = library.JumpReLUSAEConfig(
        d_in=weights.d_in,
        d_sae=weights.num_features,
        dtype=str(dtype).removeprefix("torch."),
        device="meta",
        apply_b_dec_to_input=weights.b_dec_D is not None,
    )
    sae = library.JumpReLUSAE(config)
    sae.load_state_dict(
        {
            "W_enc": operands.w_enc(dtype),
            "W_dec": torch.zeros(1, 1, dtype=dtype, device=weights.device).expand(
                weights.num_features, weights.d_in
            ),
            "b_enc": weights.b_enc_F.to(dtype),
            "b_dec": operands.b_dec(dtype),
            "threshold": weights.threshold_F.to(dtype),
        },
        assign=True,
    )

    def one(x_TD: Tensor, start: int) -> tuple[Tensor, ...]:
        acts_TF = sae.encode(x_TD)
        where_N2 = acts_TF.nonzero()
        return where_N2[:, 0] + start, where_N2[:, 1], acts_TF[where_N2[:, 0], where_N2[:, 1]]

    encode = _with_tf32(_in_chunks(chunk, one), tf32)
    return Way(f"saelens-{'tf32' if tf32 else SHORT[dtype]}", "peer", encode, read_parts)


def delphi(operands: Operands, chunk: int, dtype: torch.dtype) -> Way:
    """delphi's gather, written as `delphi/latents/cache.py` and its Gemma Scope encoder (0.1.3) write it.

    Dense latents [batch, sequence, F], `nonzero(abs > 1e-5)`, the mask once more for the values, both to the
    host. Its encoder subtracts no `b_dec`; where the dictionary does, the inputs come with it subtracted.
    """
    weights = operands.weights
    w_enc_DF, b_enc_F = operands.w_enc(dtype), weights.b_enc_F.to(dtype)
    threshold_F, b_dec_D = weights.threshold_F.to(dtype), operands.b_dec(dtype)

    def one(x_TD: Tensor, start: int) -> tuple[Tensor, ...]:
        x_1TD = x_TD.to(dtype)[None]
        if weights.b_dec_D is not None:
            x_1TD = x_1TD - b_dec_D
        pre_acts = x_1TD @ w_enc_DF + b_enc_F
        mask = pre_acts > threshold_F
        latents = mask * torch.nn.functional.relu(pre_acts)
        locations = torch.nonzero(latents.abs() > 1e-5)
        activations = latents[latents.abs() > 1e-5]
        locations[:, 1] += start
        return locations.cpu(), activations.cpu()

    def read(result: Result) -> Entries:
        assert isinstance(result, list)
        locations, activations = (torch.cat(column) for column in zip(*result, strict=True))
        return Entries(locations[:, 1], locations[:, 2], activations.float())

    return Way(f"delphi-{SHORT[dtype]}", "peer", _in_chunks(chunk, one), read)


def sparsify(operands: Operands, chunk: int, k: int, dtype: torch.dtype) -> Way:
    """sparsify's SparseCoder.encode (`fused_encoder`), which knows no threshold: TopK at the same mean L0."""
    library = _library("sparsify.sparse_coder", "eai-sparsify")
    settings = _library("sparsify.config", "eai-sparsify")
    weights = operands.weights
    config = settings.SparseCoderConfig(num_latents=weights.num_features, k=k)
    coder = library.SparseCoder(weights.d_in, config, device="meta", dtype=dtype, decoder=False)
    coder.load_state_dict(
        {
            "encoder.weight": operands.w_enc(dtype, "FD"),
            "encoder.bias": weights.b_enc_F.to(dtype),
            "b_dec": operands.b_dec(dtype),
        },
        assign=True,
    )

    def one(x_TD: Tensor, _start: int) -> tuple[Tensor, ...]:
        out = coder.encode(x_TD.to(dtype))
        return out.top_acts, out.top_indices

    def read(result: Result) -> Entries:
        assert isinstance(result, list)
        value_Tk, index_Tk = (torch.cat(column) for column in zip(*result, strict=True))
        row_Tk = torch.arange(len(index_Tk), device=index_Tk.device)[:, None].expand_as(index_Tk)
        return Entries(row_Tk.flatten(), index_Tk.flatten(), value_Tk.float().flatten())

    return Way(f"sparsify-topk-{SHORT[dtype]}", "peer", _in_chunks(chunk, one), read, top_k=k)


def _with_tf32(encode: Callable[[Tensor], Result], tf32: bool) -> Callable[[Tensor], Result]:
    def run(x_TD: Tensor) -> Result:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        try:
            return encode(x_TD)
        finally:
            torch.set_float32_matmul_precision(before)

    return run


PEERS: dict[str, Build] = {
    "saelens-fp32": lambda operands, chunk, _k: saelens(operands, chunk, torch.float32),
    "saelens-bf16": lambda operands, chunk, _k: saelens(operands, chunk, torch.bfloat16),
    "delphi-fp32": lambda operands, chunk, _k: delphi(operands, chunk, torch.float32),
    "delphi-bf16": lambda operands, chunk, _k: delphi(operands, chunk, torch.bfloat16),
    "sparsify-topk-fp32": lambda operands, chunk, k: sparsify(operands, chunk, k, torch.float32),
    "sparsify-topk-bf16": lambda operands, chunk, k: sparsify(operands, chunk, k, torch.bfloat16),
}
CUDA_PEERS: dict[str, Build] = {
    "saelens-tf32": lambda operands, chunk, _k: saelens(operands, chunk, torch.float32, tf32=True),
}
