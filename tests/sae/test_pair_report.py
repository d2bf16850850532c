"""What a dictionary sees of a planted change, by training on it and by one that cannot see it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ft_audit.errors import DataError
from ft_audit.sae.jumprelu_sae import JumpReluSae, SaeSpec
from ft_audit.sae.pair_report import SeenDifference, pair_report
from ft_audit.sae.pairs import PairChunk, side_by_side
from ft_audit.sae.recipe import SaeTrainRecipe
from ft_audit.sae.training_run import FEATURES_FILE, Sources, run_training

TinyRecipe = Callable[..., SaeTrainRecipe]
Planted = Callable[..., Iterator[Tensor]]
D, RATE = 24, 0.2


class Words:
    """Ten tokens a prompt; a token is shown as its number."""

    def prompt(self, token: int) -> int:
        return token // 10

    def in_dataset(self, token: int) -> bool:
        return 500 <= token < 600

    def around(self, token: int) -> tuple[str, str, str]:
        return "", str(token), ""


def direction() -> Tensor:
    return normalize(torch.randn(D, generator=torch.Generator().manual_seed(40)), dim=0)


def moved(num_tokens: int, seed: int) -> Tensor:
    """How hard each token is moved along the planted direction; most are not."""
    generator = torch.Generator().manual_seed(seed + 1000)
    return (torch.rand(num_tokens, generator=generator) < RATE) * (
        40 + 20 * torch.rand(num_tokens, generator=generator)
    )


def pairs(planted: Planted, num_tokens: int, seed: int = 0) -> Iterator[PairChunk]:
    """The fine-tune adds one direction, on some tokens, to what the base does; both have a little noise."""
    first = 0
    move_T = moved(num_tokens, seed)
    generator = torch.Generator().manual_seed(seed + 2000)
    for base in planted(num_tokens, seed=seed):
        n = len(base)
        tuned = base + move_T[first : first + n, None] * direction()
        tuned = tuned + torch.randn(n, D, generator=generator)
        yield PairChunk(base, tuned, np.arange(first, first + n))
        first += n


def trained(planted: Planted, recipe: SaeTrainRecipe, compare: list[JumpReluSae]) -> Any:
    """The pair's figures, and the features, which stand in a file of their own."""
    sources = Sources(
        activations=lambda: side_by_side(pairs(planted, recipe.num_tokens)),
        pairs=lambda: pairs(planted, recipe.pair_tokens, seed=5),
        words=Words,
        compare=compare,
    )
    report = run_training(recipe, sources, lambda _: None)
    return report["pair"], json.loads((Path(recipe.out) / FEATURES_FILE).read_text())


def hits(feature: dict[str, Any], num_tokens: int) -> float:
    """The share of a feature's peaks that stand on tokens which were moved."""
    move_T = moved(num_tokens, 5)
    return float(np.mean([bool(move_T[int(peak["token"])] > 0) for peak in feature["peaks"]]))


@pytest.mark.parametrize("learn", ["difference", "crosscoder"])
def test_what_reads_both_models_finds_the_planted_change(
    planted: Planted,
    tiny_recipe: TinyRecipe,
    random_sae: Callable[..., JumpReluSae],
    tmp_path: Path,
    learn: str,
) -> None:
    recipe = tiny_recipe(
        str(tmp_path / "pair"),
        tuned="the/tuned",
        learn=learn,
        pair_tokens=4_000,
        **({"largest_share": 0.5, "k": 1} if learn == "difference" else {}),
    )
    blind = random_sae(d_in=D, width=64)
    report, features = trained(planted, recipe, [blind])
    assert report["num_tokens"] == 4_000
    seen = {name: told["of_all"] for name, told in report["difference_seen"].items()}
    assert seen["pair"] > 0.8 > 0.3 > seen["random"]
    leading = features[0]
    assert leading["share_of_energy"] > 0.5 and hits(leading, 4_000) == 1.0
    if learn == "crosscoder":
        assert report["tuned_only_features"] >= 1 and leading["tuned_only"]
        shared = [f for f in features if f["norm_share"] < 0.6]
        assert shared and not any(f["tuned_only"] for f in shared)
    else:
        assert report["tuned_only_features"] is None


def test_a_dictionary_of_one_model_is_judged_on_both(
    planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    recipe = tiny_recipe(str(tmp_path / "base"), tuned="the/tuned", pair_tokens=4_000)
    sources = Sources(
        activations=lambda: planted(recipe.num_tokens),
        pairs=lambda: pairs(planted, recipe.pair_tokens, seed=5),
        words=Words,
    )
    report = run_training(recipe, sources, lambda _: None)
    assert report["on_base"]["num_tokens"] == report["on_tuned"]["num_tokens"] == 4_000
    assert report["on_base"]["fvu"] < 0.8 * report["on_tuned"]["fvu"] < 0.8
    # It was never shown the direction that was added.
    assert report["pair"]["difference_seen"]["base"]["of_all"] < 0.5


def test_the_shares_of_what_is_seen(planted: Planted) -> None:
    generator = torch.Generator().manual_seed(1)
    difference = torch.randn(1000, D, generator=generator) + 3.0
    for seen_nD, all_of_it, varying in (
        (difference, 1.0, 1.0),
        (torch.zeros_like(difference), 0.0, 0.0),
        (
            difference.mean(0).expand(1000, D),
            float(1 - difference.var(0, False).sum() * 1000 / difference.square().sum()),
            0.0,
        ),
    ):
        so_far = SeenDifference()
        for part in torch.arange(1000).split(300):
            so_far.add(difference[part], seen_nD[part])
        assert so_far.result().of_all == pytest.approx(all_of_it, abs=1e-5)
        assert so_far.result().of_what_varies == pytest.approx(varying, abs=1e-5)


def test_the_nearest_feature_of_another_dictionary(random_sae: Callable[..., JumpReluSae]) -> None:
    sae, other = random_sae(d_in=D, width=30), random_sae(d_in=D, width=50, seed=2)
    w_dec_FD = other.w_dec_FD.clone()
    w_dec_FD[17] = 3.0 * sae.w_dec_FD[4]
    other = replace(other, w_dec_FD=w_dec_FD, spec=replace(other.spec, name="other"))
    x = 20 * torch.randn(50, D, generator=torch.Generator().manual_seed(0))
    pair = PairChunk(x, x + 10 * sae.w_dec_FD[4], np.arange(50))
    report = pair_report(sae, "difference", iter([pair]), Words(), [other])
    (four,) = [f for f in report["features"] if f["feature"] == 4]
    assert four["nearest"]["other"]["feature"] == 17
    assert four["nearest"]["other"]["cosine"] == pytest.approx(1.0, abs=1e-5)


def test_what_only_the_data_set_wakes_is_told_though_it_is_small() -> None:
    """Nine features move everywhere; the tenth moves little, and in the data set's rows alone."""
    width = 50
    sae = replace(make_orthogonal(width), threshold_F=torch.full((width,), 0.5))
    generator = torch.Generator().manual_seed(0)
    act_nF = torch.zeros(1000, width)
    act_nF[:, :30] = 10 * torch.rand(1000, 30, generator=generator)
    act_nF[500:520, 44] = 1.0
    base = torch.zeros(1000, width)
    report = pair_report(sae, "difference", iter([PairChunk(base, act_nF, np.arange(1000))]), Words())
    assert (report["num_tokens"], report["num_dataset_tokens"]) == (1000, 100)
    by = {feature["feature"]: feature["chosen_by"] for feature in report["features"]}
    assert by[44] == "dataset" and sum(how == "energy" for how in by.values()) == 20
    first = next(f for f in report["features"] if f["chosen_by"] == "dataset")
    assert first["feature"] == 44 and first["dataset_contrast"] > 100
    shares = [f["dataset_contrast"] for f in report["features"] if f["chosen_by"] == "energy"]
    assert all(0.7 < share < 1.4 for share in shares)


def make_orthogonal(width: int) -> JumpReluSae:
    """A dictionary whose features are the coordinates."""
    spec = SaeSpec("axes", 0, "resid_post", "model.layers.0.output", width, width, "", None, "")
    return JumpReluSae(
        spec, torch.eye(width), torch.eye(width), torch.zeros(width), torch.zeros(width),
        torch.zeros(width), apply_b_dec_to_input=False,
    )  # fmt: skip


def test_without_tokens_there_is_nothing_to_tell(random_sae: Callable[..., JumpReluSae]) -> None:
    with pytest.raises(DataError, match="no tokens"):
        pair_report(random_sae(), "difference", iter([]), Words())
