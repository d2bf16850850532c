"""Hugging Face's models under the contract of every runner, over the families that dictionaries exist for."""

import copy
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from ft_audit.engine.models.anatomy import anatomy, outline
from ft_audit.engine.models.load import load_model
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.runners.sites import hook_width
from ft_audit.engine.tokens.padded import PaddedBatch
from ft_audit.errors import ConfigError

contract = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("contract.py"))))
CPU = torch.device("cpu")
SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8}
TEXT = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "head_dim": 16,
    "initializer_range": 0.2,
    **SLIDING,
}
VISION = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
# Windows are shorter than the prompts; Gemma's heads are wider together than the stream.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 16, **SLIDING},
    "gemma3": {"text_config": TEXT, "vision_config": {**VISION, "image_size": 28, "patch_size": 14}},
    "gpt2": {},
    "olmo2": {},
}


@dataclass(frozen=True)
class Parts:
    """Where the published dictionaries' hook points lie in a family's blocks, written out by hand."""

    projection: str = "self_attn.o_proj"
    after_attention: str | None = None
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None
    heads_width: int = 32


GEMMA = Parts(
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
    heads_width=64,
)
PARTS = {
    "llama": Parts(),
    "mistral": Parts(),
    "qwen2": Parts(),
    "qwen3": Parts(heads_width=64),
    "gemma": Parts(heads_width=64),
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "gemma3": GEMMA,
    "gpt2": Parts("attn.c_proj", before_mlp="ln_2"),
    "olmo2": Parts(
        after_attention="post_attention_layernorm", before_mlp=None, after_mlp="post_feedforward_layernorm"
    ),
}
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_in", "mlp_out")


def load(folder: Path) -> Any:
    return load_model(resolve_model(str(folder), folder), torch.float32, CPU)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, make_model: Callable[..., Path]) -> Any:
    return load(make_model(family, **FAMILIES[family]))


@pytest.fixture
def case(model: Any) -> Any:
    return contract.Case(lambda hooks: HfRunner(model, hooks), model)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_the_contract(case: Any, check: Callable[[Any], None]) -> None:
    check(case)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_the_contract_with_an_adapter_on_or_off(
    check: Callable[[Any], None], tiny_base: Path, tiny_adapter: Path
) -> None:
    base = resolve_model(str(tiny_base), tiny_base)
    tuned = load_model(resolve_model(str(tiny_adapter), tiny_base, base), torch.float32, CPU)
    check(contract.Case(lambda hooks: HfRunner(tuned, hooks), tuned))
    with without_adapter(tuned):
        check(contract.Case(lambda hooks: HfRunner(tuned, hooks), load(tiny_base)))


@pytest.mark.slow
@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_the_contract_on_the_real_base(check: Callable[[Any], None], real_base: ModelSource) -> None:
    model = load_model(real_base, torch.float32, CPU)
    check(contract.Case(lambda hooks: HfRunner(model, hooks), model, special=range(17)))


def batch(lengths: Sequence[int] = (20, 1, 31, 8)) -> PaddedBatch:
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 400, (n,), generator=generator).tolist() for n in lengths]
    made: PaddedBatch = contract.batch_of(prompts, pad_id=2)
    return made


@torch.inference_mode()
def test_every_site_is_what_its_dictionaries_were_trained_on(model: Any, family: str) -> None:
    """Each site follows from the one before by the model's own modules, called by hand."""
    at = PARTS[family]
    for layer in (0, 1, 3):
        forward = HfRunner(model, [HookPoint(layer, site) for site in SITES]).run(batch())
        x = {site: forward.hooks[f"{site}/{layer}"] for site in SITES}
        block = anatomy(model).blocks[layer]

        def call(name: str | None, value: Tensor, block: Any = block) -> Tensor:
            return value if name is None else block.get_submodule(name)(value)

        close(x["attn_out"], call(at.after_attention, call(at.projection, x["attn_z"])))
        close(x["resid_mid"], x["resid_pre"] + x["attn_out"])
        close(x["mlp_in"], call(at.before_mlp, x["resid_mid"]))
        close(x["mlp_out"], call(at.after_mlp, call("mlp", x["mlp_in"])))
        close(x["resid_post"], x["resid_mid"] + x["mlp_out"])
        assert x["attn_z"].shape[-1] == at.heads_width
        for site in SITES:
            hook = HookPoint(layer, site)
            assert hook_width(outline(model.config), hook) == x[site].shape[-1]
    expected = contract.Case(None, model).states(batch().ids_BL[2].tolist())
    found = HfRunner(model, [HookPoint(n, "resid_pre") for n in range(4)]).run(batch())
    for layer in range(4):
        close(found.hooks[f"resid_pre/{layer}"][21:52], expected[layer])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("after", range(1, 5))
def test_from_a_shared_prefix_on_the_bits_are_the_same(model: Any, after: int) -> None:
    hooks = [HookPoint(layer) for layer in range(4)]
    whole = HfRunner(model, hooks, keep_prefix=after).run(batch(), final=True)
    assert whole.prefix_BLD is not None and whole.prefix_BLD.shape == (4, 31, 32)
    rest = hooks[after:]
    runner = HfRunner(model, rest, first_block=after)
    with BlocksThatRun(model) as ran:
        found = runner.run(batch(), final=True, prefix_BLD=whole.prefix_BLD)
    assert ran.numbers == list(range(after, 4))
    assert set(found.hooks) == {hook.name for hook in rest} and found.prefix_BLD is None
    for hook in rest:
        assert torch.equal(found.hooks[hook.name], whole.hooks[hook.name])
    assert found.final_TD is not None and whole.final_TD is not None
    assert torch.equal(found.final_TD, whole.final_TD)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "attn_z"])
def test_a_hook_on_the_first_block_after_the_prefix_sees_what_it_is_handed(model: Any, site: str) -> None:
    hook = HookPoint(2, site)
    whole = HfRunner(model, [hook], keep_prefix=2).run(batch())
    found = HfRunner(model, [hook], first_block=2).run(batch(), prefix_BLD=whole.prefix_BLD)
    assert torch.equal(found.hooks[hook.name], whole.hooks[hook.name])


def test_another_model_goes_on_where_the_first_left_off(make_model: Callable[..., Path]) -> None:
    """A fine-tune of the last blocks: what it gives from the base's stream on is what it gives by itself."""
    base = load(make_model("gemma3_text", **FAMILIES["gemma3_text"]))
    tuned = load(make_model("gemma3_text", **FAMILIES["gemma3_text"]))
    with torch.no_grad():
        anatomy(tuned).blocks[2].mlp.down_proj.weight.mul_(1.5)
    prefix = HfRunner(base, [HookPoint(1)], keep_prefix=2).run(batch()).prefix_BLD
    found = (
        HfRunner(tuned, [HookPoint(3)], first_block=2).run(batch(), prefix_BLD=prefix).hooks["resid_post/3"]
    )
    assert torch.equal(found, HfRunner(tuned, [HookPoint(3)]).run(batch()).hooks["resid_post/3"])
    assert not torch.equal(found, HfRunner(base, [HookPoint(3)]).run(batch()).hooks["resid_post/3"])


class BlocksThatRun:
    """Within it, the numbers of the blocks that run are noted, and how often the final norm does."""

    def __init__(self, model: Any) -> None:
        self.numbers: list[int] = []
        self.norm: list[int] = []
        found = anatomy(model)
        norm: Any = next(m for name, m in found.parent.named_children() if name in ("norm", "ln_f"))
        self.handles = [
            block.register_forward_hook(lambda *_, n=n: self.numbers.append(n))
            for n, block in enumerate(found.blocks)
        ]
        self.handles.append(norm.register_forward_hook(lambda *_: self.norm.append(1)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [
        ([HookPoint(1)], [0, 1]),
        ([HookPoint(0), HookPoint(2, "attn_z")], [0, 1, 2]),
        ([HookPoint(2, "resid_pre")], [0, 1]),
        ([HookPoint(0, "resid_pre")], [0]),
    ],
    ids=str,
)
def test_nothing_after_the_last_hook_runs(model: Any, hooks: list[HookPoint], expected: list[int]) -> None:
    runner = HfRunner(model, hooks)
    with BlocksThatRun(model) as ran:
        runner.run(batch())
    assert ran.numbers == expected and not ran.norm
    with BlocksThatRun(model) as ran:
        runner.run(batch(), final=True)
    assert ran.numbers == [0, 1, 2, 3] and ran.norm == [1]


class Interrupted(Exception):
    """Stands for anything that goes wrong in the middle of a forward pass."""


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_whole_again_afterwards(model: Any, fails: bool) -> None:
    found = anatomy(model)
    before = (found.blocks, [*found.parent.children()], model.config.to_dict())
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]

    def fail(*_: Any) -> None:
        raise Interrupted

    runner = HfRunner(model, [HookPoint(1, site) for site in SITES])
    handle = found.blocks[1].register_forward_hook(fail) if fails else None
    if handle is not None:
        with pytest.raises(Interrupted):
            runner.run(batch())
        handle.remove()
    else:
        runner.run(batch())
    assert found.blocks is before[0] and len(found.blocks) == 4
    assert [*found.parent.children()] == before[1] and model.config.to_dict() == before[2]
    assert hooks == [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    ]


def test_a_layer_that_does_not_exist_is_named(model: Any) -> None:
    with pytest.raises(ConfigError, match="hooks: layer 4 does not exist; this model has blocks 0 to 3"):
        HfRunner(model, [HookPoint(0), HookPoint(4)])
    with pytest.raises(ConfigError, match="layer 5 does not exist"):
        hook_width(anatomy(model), HookPoint(5, "attn_z"))


@pytest.mark.parametrize(
    ("family", "changes", "refused", "why"),
    [
        ("phi", {}, {"resid_mid"}, "no norm between attention and MLP"),
        ("cohere", {}, {"resid_mid"}, "no norm between attention and MLP"),
        # Both halves have a norm here, and both norms read what enters the block.
        ("gpt_neox", {}, {"resid_mid"}, "the MLP does not read the stream after attention"),
        ("granite", {"residual_multiplier": 0.5}, {"resid_mid", "attn_out", "mlp_out"}, "not simply add"),
    ],
)
def test_a_site_that_a_family_lacks_is_refused_by_name(
    make_model: Callable[..., Path], family: str, changes: dict[str, Any], refused: set[str], why: str
) -> None:
    model = load(make_model(family, **changes))
    for site in SITES:
        if site in refused:
            with pytest.raises(ConfigError, match=f"hooks: {site}/1 cannot be read: .*{why}"):
                HfRunner(model, [HookPoint(1, site)])
        else:
            assert HfRunner(model, [HookPoint(1, site)]).run(batch()).hooks[f"{site}/1"].shape == (60, 32)


def test_a_family_with_several_streams_is_refused(make_model: Callable[..., Path]) -> None:
    settings = {"layer_types": ["full_attention"] * 4, "num_kv_shared_layers": 0, "head_dim": 8}
    gemma = {"vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 8, "laurel_rank": 4}
    sparsity = {"activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [64] * 4}
    model = load(make_model("gemma3n_text", **settings, **gemma, **sparsity))
    with pytest.raises(ConfigError, match=r"resid_post/1 cannot be read: .* not one vector each"):
        HfRunner(model, [HookPoint(1)])


@pytest.mark.parametrize("depth", [1, 3])
def test_a_model_loaded_up_to_its_last_hook_gives_the_same_bits(
    make_model: Callable[..., Path], family: str, depth: int
) -> None:
    """Prompts are longer than the windows, and block 1 attends otherwise than block 0."""
    folder = make_model(family, **FAMILIES[family])
    source = resolve_model(str(folder), folder)
    whole = load_model(source, torch.float32, CPU)
    part = load_model(source, torch.float32, CPU, num_layers=depth, head=False)
    assert len(anatomy(part).blocks) == depth
    hooks = [HookPoint(depth - 1, site) for site in SITES]
    expected, found = (HfRunner(model, hooks).run(batch()).hooks for model in (whole, part))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_model_on_several_devices_is_read_like_one(make_model: Callable[..., Path]) -> None:
    """Weights that lie on disk stand for those of another device: they come and go by the same means."""
    folder = make_model("gemma3_text", **FAMILIES["gemma3_text"])
    source = resolve_model(str(folder), folder)
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "disk"}
    places |= {f"model.layers.{n}": "disk" if n in (1, 2) else "cpu" for n in range(4)}
    spread = load_model(source, torch.float32, CPU, device_map=places)
    assert any(parameter.is_meta for parameter in spread.parameters())
    hooks = [HookPoint(layer, site) for layer in (1, 3) for site in SITES]
    whole = HfRunner(load(folder), hooks, keep_prefix=2).run(batch(), final=True)
    found = HfRunner(spread, hooks, keep_prefix=2).run(batch(), final=True)
    for name, expected in whole.hooks.items():
        assert torch.equal(found.hooks[name], expected)
    assert found.final_TD is not None and whole.final_TD is not None
    assert torch.equal(found.final_TD, whole.final_TD)
    rest = HfRunner(spread, [HookPoint(3)], first_block=2).run(batch(), prefix_BLD=found.prefix_BLD)
    assert torch.equal(rest.hooks["resid_post/3"], whole.hooks["resid_post/3"])
    assert any(parameter.is_meta for parameter in spread.parameters())


def test_half_precision_stays_half(model: Any) -> None:
    """Activations come in the model's own type, massive ones unclipped."""
    low = copy.deepcopy(model).to(torch.bfloat16)
    with torch.no_grad():
        low.get_input_embeddings().weight[7, 5] = 3e5
    forward = HfRunner(low, [HookPoint(0), HookPoint(2, "resid_mid")]).run(contract.batch_of([[5, 7, 9]]))
    x_TD = forward.hooks["resid_post/0"]
    assert (
        x_TD.dtype == torch.bfloat16 and bool(torch.isfinite(x_TD).all()) and float(x_TD.abs().max()) > 65504
    )
