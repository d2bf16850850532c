"""Owns the last step of every format: tensors and facts become one JumpReluSae with its hash."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.kernels.jumprelu.input_norm import InputNorm
from ft_audit.sae.digest import hashed
from ft_audit.sae.hook_names import find_hook, read_hooks, split_hook
from ft_audit.sae.jumprelu_sae import JumpReluSae, PairReading, SaeSpec

UNPLAIN = re.compile(r"[^\w.,+=@()-]")
SNAPSHOT = re.compile(r"[0-9a-f]{40}")
WIDTH = re.compile(r"width_(?P<number>\d+)(?P<unit>[km])")


@dataclass(frozen=True, slots=True)
class Told:
    """What the user says of a dictionary beside its files; many publish no hook or no model."""

    hook: str | None = None
    model_name: str | None = None


NOTHING_TOLD = Told()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a format's files and folders say of a dictionary."""

    name: str
    hook_point: str
    """What it reads, in the publisher's words."""
    inputs: tuple[str, ...]
    model_name: str
    l0: float | None = None
    writes: tuple[str, ...] = ()
    pair: PairReading | None = None


def build_sae(
    facts: Facts,
    *,
    w_enc_DF: Tensor,
    w_dec_FO: Tensor,
    b_enc_F: Tensor,
    b_dec_O: Tensor,
    threshold_F: Tensor,
    apply_b_dec_to_input: bool = False,
    topk: int | None = None,
    input_norm: InputNorm = "none",
    w_skip_DO: Tensor | None = None,
) -> JumpReluSae:
    """The dictionary of checked tensors, float32 on the CPU; see JumpReluSae for what each is.

    Everything of it is stored under its name, so that what is no plain character there becomes `_`.
    """
    d_in, width = w_enc_DF.shape
    layer, site = split_hook(facts.inputs[0])
    spec = SaeSpec(
        name=UNPLAIN.sub("_", facts.name).lstrip(".") or "unnamed",
        layer=layer,
        site=site,
        hook_point=facts.hook_point,
        width=width,
        d_in=d_in,
        model_name=facts.model_name,
        l0=facts.l0,
        sha256="",
        also_reads=facts.inputs[1:],
        writes=facts.writes,
        pair=facts.pair,
    )
    sae = JumpReluSae(
        spec,
        w_enc_DF=w_enc_DF.contiguous(),
        w_dec_FD=w_dec_FO.contiguous(),
        b_enc_F=b_enc_F,
        b_dec_D=b_dec_O,
        threshold_F=threshold_F,
        apply_b_dec_to_input=apply_b_dec_to_input,
        topk=topk,
        input_norm=input_norm,
        w_skip_DO=w_skip_DO,
    )
    return hashed(sae)


def read_hook(published: str | None, where: str, told: Told) -> tuple[str, str]:
    """The one hook that a dictionary reads, and its published name.

    What is published counts; what the user says fills its place where it is missing, and must agree with it.
    Raises SaeError where neither is there, or they differ.
    """
    said = read_hooks(told.hook, "--hook")[0] if told.hook is not None else None
    if published is None:
        if said is None:
            raise SaeError(
                f"{where}: nothing says which place of the model it reads; give it once with "
                f"`ft-audit sae convert SRC DST --hook resid_post/22 --model OWNER/NAME`"
            )
        return said, said
    # A place without a name here may still be one that the user can name.
    if said is not None and find_hook(published) is None:
        return said, said
    found = read_hooks(published, where)
    if len(found) > 1:
        raise SaeError(f"{where} is {published!r}, {len(found)} places; expected one for this kind")
    if said is not None and said != found[0]:
        raise SaeError(f"{where} is {published!r} ({found[0]}), --hook says {said}; leave --hook out")
    return found[0], published


def check_width(where: str, says: object, width: int) -> None:
    """Raise SaeError where a config or a folder's name gives another number of features than the tensors."""
    if isinstance(says, str):
        found = WIDTH.search(says)
        unit = {"k": 1_000, "m": 1_000_000}
        fits = found is None or width // unit[found["unit"]] == int(found["number"])
    else:
        fits = says is None or says == width
    if not fits:
        raise SaeError(
            f"{where}: width is {says}, but the encoder has {width} features; the files do not belong "
            f"together, fetch all of them again"
        )


def whole_number(where: str, name: str, value: object) -> int:
    """A positive number out of a config or a state dict, or SaeError naming it."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SaeError(f"{where}: {name} is {value!r}; expected a positive whole number; fetch it again")
    return value


def described(path: Path) -> str:
    """A name for a dictionary whose own folder or file is called like those of others: `pythia-layers.5`."""
    own = path.name.removesuffix(".pt").removesuffix(".safetensors").removesuffix(".sae")
    parent = path.absolute().parent
    if SNAPSHOT.fullmatch(parent.name):
        parent = Path(parent.parent.parent.name.rpartition("--")[2])
    return f"{parent.name}-{own}" if parent.name else own


def where_it_lies(path: Path) -> str:
    """The folders above a dictionary as one text, a hub cache's repository in its own writing."""
    return str(path.absolute()).replace("models--", "").replace("--", "/")
