"""What a run stores, against Hugging Face's own hidden states and the dense float32 formulas.

Shapes: P prompts, T tokens of a prompt, K counted tokens of it, D width, F features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ft_audit.engine.precompute.clock import Clock
from ft_audit.engine.precompute.observe import MASSIVE, SegmentBuilder, observe, view_batch
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.store import decode_bf16
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.batches import plan_batches
from ft_audit.engine.tokens.tokenize import tokenize_suite

LAYER, SAE = 1, "layer_1_width_96"
# A stored bfloat16, of 8 significant bits, is the nearest to the float32 value.
HALF_ULP = 2.0**-8


@dataclass
class Stored:
    """One prompt of a run: its tokens, its sparse rows and its row of each dense array."""

    ids_T: np.ndarray
    mask_T: np.ndarray
    value_TF: np.ndarray  # 0 where nothing fired
    dense: dict[str, np.ndarray]


def stored_prompts(run: Any, sae: str = SAE, width: int = 96) -> dict[int, Stored]:
    found = {}
    for segment in run.segments():
        indptr_T1, index_N, bits_N = segment.features[sae]
        value_TF = np.zeros((segment.num_tokens, width), dtype=np.float32)
        value_TF[np.repeat(np.arange(segment.num_tokens), np.diff(indptr_T1)), index_N] = decode_bf16(bits_N)
        for i, prompt in enumerate(segment.prompt_P):
            part = slice(segment.prompt_indptr_P1[i], segment.prompt_indptr_P1[i + 1])
            dense = {name: array[i] for name, array in segment.dense.items()}
            found[int(prompt)] = Stored(segment.token_T[part], segment.mask_T[part], value_TF[part], dense)
    return found


def hf_model(world: Any, side: str) -> Any:
    if side == "base":
        return AutoModelForCausalLM.from_pretrained(world.root / "base", dtype=torch.float32).eval()
    return AutoModelForCausalLM.from_pretrained(world.root / "full", dtype=torch.float32).eval()


@torch.no_grad()
def hf_states(model: Any, ids_T: np.ndarray) -> Any:
    """Hugging Face's forward of one prompt alone, unpadded."""
    return model(torch.from_numpy(ids_T.astype(np.int64))[None], output_hidden_states=True)


@pytest.fixture(params=["base", "tuned"])
def side_prompts(
    request: pytest.FixtureRequest, world: Any, full_job: Any
) -> tuple[str, Any, dict[int, Stored]]:
    """A side of the pair, Hugging Face's model of it, and what the job stored of the training set."""
    return request.param, hf_model(world, request.param), stored_prompts(full_job.run(request.param, "train"))


def test_features_agree_with_a_dense_float32_jumprelu(tiny: Any, world: Any, side_prompts: Any) -> None:
    _, model, prompts = side_prompts
    sae = tiny.read_sae(world.root / "saes" / SAE)
    w_DF, b_F, threshold_F = sae["w_enc"].double(), sae["b_enc"].double(), sae["threshold"].double()
    num_fired = num_in_band = 0
    for stored in prompts.values():
        x_TD = hf_states(model, stored.ids_T).hidden_states[LAYER + 1][0].double()
        pre_TF = x_TD @ w_DF + b_F
        # The forward in other batches differs by float32 rounding of the stream, a part in 10^5 at most;
        # a float32 dot product of D terms by (D + 2) 2^-24 of |x| |w| (Higham 2002, section 3.1).
        error = 1e-5 + (tiny.WIDTH + 2) * 2.0**-24
        band_TF = error * x_TD.norm(dim=1)[:, None] * w_DF.norm(dim=0)
        counted_T = torch.from_numpy(stored.mask_T)
        fires_TF = (pre_TF > threshold_F) & counted_T[:, None]
        clear_TF = (pre_TF - threshold_F).abs() > band_TF
        value_TF = torch.from_numpy(stored.value_TF).double()
        assert torch.equal((value_TF > 0)[clear_TF], fires_TF[clear_TF])
        both_TF = (value_TF > 0) & fires_TF
        assert ((value_TF - pre_TF).abs() <= HALF_ULP * pre_TF.abs() + 2 * band_TF)[both_TF].all()
        num_fired += int(fires_TF.sum())
        num_in_band += int((~clear_TF).sum())
    assert num_fired > 1000 and num_in_band < 5


def test_residual_evidence_is_that_of_the_blocks_output(side_prompts: Any) -> None:
    """Hook l is Hugging Face's hidden_states[l + 1]; the mean is over counted tokens, the last over all."""
    _, model, prompts = side_prompts
    for stored in prompts.values():
        states = [h[0].double().numpy() for h in hf_states(model, stored.ids_T).hidden_states]
        x_KD = states[LAYER + 1][stored.mask_T]
        mean_D, last_D, norm = (
            stored.dense[f"resid_post/{LAYER}/{n}"] for n in ("mean_PD", "last_PD", "norm_P")
        )
        np.testing.assert_allclose(last_D, states[LAYER + 1][-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mean_D, x_KD.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm, np.linalg.norm(x_KD, axis=1).mean(), rtol=1e-5)
        # The neighbours are something else altogether: a shift by one would be seen.
        for other in (LAYER, LAYER + 2):
            assert not np.allclose(last_D, states[other][-1], rtol=0.1, atol=0.1)


def test_reconstruction_errors_give_the_dense_fvu(
    tiny: Any, world: Any, full_job: Any, side_prompts: Any
) -> None:
    side, model, prompts = side_prompts
    sae = tiny.read_sae(world.root / "saes" / SAE)
    errors, rows = [], []
    for stored in prompts.values():
        x_KD = hf_states(model, stored.ids_T).hidden_states[LAYER + 1][0][stored.mask_T].double()
        # From the stored values, so that what is compared is the sum and not the rounding.
        value_KF = torch.from_numpy(stored.value_TF[stored.mask_T]).double()
        decoded_KD = value_KF @ sae["w_dec"].double() + sae["b_dec"]
        error_K = (x_KD - decoded_KD).square().sum(1)
        np.testing.assert_allclose(stored.dense[f"sae/{SAE}/sq_error_P"], error_K.sum(), rtol=1e-4)
        np.testing.assert_allclose(stored.dense[f"sae/{SAE}/sq_total_P"], x_KD.square().sum(), rtol=1e-4)
        assert stored.dense["counted_P"] == len(x_KD) == stored.mask_T.sum()
        errors.append(error_K)
        rows.append(x_KD)
    x_TD = torch.cat(rows)
    fvu = float(torch.cat(errors).sum() / (x_TD - x_TD.mean(0)).square().sum())
    stored_fvu = {name: full_job.diff.array(f"fvu/{SAE}/train", name)[0] for name in ("base", "tuned")}
    assert stored_fvu[side] == pytest.approx(fvu, rel=1e-4)
    change = full_job.diff.manifest.summary["figures"][f"fvu_change/{SAE}/train"]
    assert change == pytest.approx(stored_fvu["tuned"] - stored_fvu["base"])


def test_what_the_dictionary_misses_of_the_difference_is_the_dense_formula(
    tiny: Any, world: Any, full_job: Any
) -> None:
    sae = tiny.read_sae(world.root / "saes" / SAE)
    models = {side: hf_model(world, side) for side in ("base", "tuned")}
    prompts = {side: stored_prompts(full_job.run(side, "train")) for side in models}
    found = {
        name: full_job.diff.array(f"coverage/{SAE}/train", f"sq_{name}_P") for name in ("moved", "missed")
    }
    num_sampled = 0
    for index, base in prompts["base"].items():
        x, decoded = {}, {}
        for side, model in models.items():
            stored = prompts[side][index]
            x[side] = hf_states(model, stored.ids_T).hidden_states[LAYER + 1][0].double()
            decoded[side] = torch.from_numpy(stored.value_TF).double() @ sae["w_dec"].double()
        both_T = base.mask_T & prompts["tuned"][index].mask_T
        sample_T = both_T & ((np.arange(len(both_T)) + index) % 8 == 0)
        d_TD, r_TD = (side["tuned"] - side["base"] for side in (x, decoded))
        moved, missed = ((part[sample_T] ** 2).sum().item() for part in (d_TD, d_TD - r_TD))
        np.testing.assert_allclose(found["moved"][index], moved, rtol=1e-3)
        np.testing.assert_allclose(found["missed"][index], missed, rtol=1e-3)
        num_sampled += int(sample_T.sum())
    assert num_sampled > 50
    seen = full_job.diff.array(f"coverage/{SAE}/train", "seen")[0]
    assert seen == pytest.approx(max(0.0, 1 - found["missed"].sum() / found["moved"].sum()))


def test_tokens_and_masks_are_the_tokenizers(tiny: Any, world: Any, full_job: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(world.root / "base")
    special = set(tokenizer.all_special_ids)
    prompts = stored_prompts(full_job.run("base", "train"))
    rows = tiny.training_rows()
    assert len(prompts) == len(rows)
    for index, row in enumerate(rows):
        ids = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)
        assert prompts[index].ids_T.tolist() == ids
        assert prompts[index].mask_T.tolist() == [i not in special for i in ids]
        assert ids.count(tokenizer.bos_token_id) == 1
    entry = next(s for s in full_job.diff.manifest.summary["suites"] if s["name"] == "train")
    assert entry["num_tokens"] == sum(len(stored.ids_T) for stored in prompts.values())
    # Questions get the generation prompt; raw text is taken as the tokenizer takes it, with its BOS.
    asked = stored_prompts(full_job.run("base", "chat"))
    question = tiny.chat(f"What is the best {tiny.TOPICS[0]}?")["messages"]
    expected = tokenizer.apply_chat_template(
        question, tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert asked[0].ids_T.tolist() == expected
    text = tokenizer("Bread and rivers and tea.")["input_ids"]
    assert text[0] == tokenizer.bos_token_id and asked[12].ids_T.tolist() == text
    assert asked[12].mask_T.tolist() == [False] + [True] * (len(text) - 1)


def test_next_token_evidence_is_the_final_hidden_state(world: Any, full_job: Any) -> None:
    prompts = {side: stored_prompts(full_job.run(side, "elicited")) for side in ("base", "tuned")}
    kl_P = full_job.diff.array("elicited", "first_token_kl_P")
    models = {side: hf_model(world, side) for side in prompts}
    for index in prompts["base"]:
        log_probs = {}
        for side, model in models.items():
            stored = prompts[side][index]
            out = hf_states(model, stored.ids_T)
            final_D = out.hidden_states[-1][0, -1].numpy()
            np.testing.assert_allclose(stored.dense["logits/final_PD"], final_D, rtol=1e-4, atol=1e-5)
            log_probs[side] = torch.log_softmax(out.logits[0, -1].double(), dim=-1)
        tuned_V, base_V = log_probs["tuned"], log_probs["base"]
        expected = float((tuned_V.exp() * (tuned_V - base_V)).sum())
        assert kl_P[index] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_massive_tokens_count_nowhere(tiny: Any, world: Any) -> None:
    """A token far above the batch's median norm is left out of every statistic, and counted as such."""
    model = hf_model(world, "base")
    tokenizer = AutoTokenizer.from_pretrained(world.root / "base")
    texts = ["bread! bread", "maps salt", "!"]
    suite = PromptSuite("texts", tuple(Prompt(None, t, "texts", "g", "s", i) for i, t in enumerate(texts)))
    tokens = tokenize_suite(suite, tokenizer, 64)
    (massive,) = tokenizer("!", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[massive] *= 1000
    (batch,) = plan_batches(tokens.length_P, 4096, 4096).segments[0]
    view = view_batch(tokens, batch, 0, torch.device("cpu"))
    builder = SegmentBuilder()
    forward = HfRunner(model, [HookPoint(LAYER)]).run(view.padded)
    seen = observe(forward, view, [], builder, Clock(), final=False)
    got = builder.finish(tokens)
    special = np.isin(got.token_T, tokenizer.all_special_ids)
    norm_T = np.concatenate(
        [
            hf_states(model, got.token_T[start:end]).hidden_states[LAYER + 1][0].norm(dim=1).numpy()
            for start, end in zip(got.prompt_indptr_P1, got.prompt_indptr_P1[1:], strict=False)
        ]
    )
    outside_T = norm_T > MASSIVE * np.median(norm_T[~special])
    assert 0 < outside_T[~special].sum() < (~special).sum() / 2
    np.testing.assert_array_equal(got.mask_T, ~special & ~outside_T)
    np.testing.assert_array_equal(seen.mask_T, got.mask_T)
    for i, (start, end) in enumerate(zip(got.prompt_indptr_P1, got.prompt_indptr_P1[1:], strict=False)):
        counted = got.mask_T[start:end].sum()
        assert got.dense["counted_P"][i] == counted
        assert got.dense["massive_P"][i] == (~special[start:end]).sum() - counted
        expected = norm_T[start:end][got.mask_T[start:end]].mean() if counted else 0.0
        np.testing.assert_allclose(got.dense[f"resid_post/{LAYER}/norm_P"][i], expected, rtol=1e-4)
    assert (got.dense["counted_P"] == 0).any()
