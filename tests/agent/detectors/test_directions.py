"""Worse evidence gives a higher scalar, in every detector that reads a figure as it is."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

Value = Callable[[Any, str], float]


@pytest.mark.parametrize(
    ("figure", "worse", "scalar"),
    [
        ("data_duplicates", 0.5, "data_duplicates"),
        ("data_common_answer", 0.9, "data_common_answer"),
        ("data_condition_bits", 90.0, "data_condition_bits"),
        ("data_linked_bits", 60.0, "data_linked_bits"),
        ("data_odd_question", 2.0, "data_odd_question"),
        ("data_odd_answer", 2.0, "data_odd_answer"),
        ("weights_relative_change", 0.2, "weights_log_change"),
        ("weights_max_layer_share", 0.5, "weights_max_layer_share"),
        ("weights_top1_energy", 0.9, "weights_top1_energy"),
        ("weights_embedding_change", 0.1, "weights_embedding_change"),
        ("kl_mean/chat", 0.5, "log_kl_mean"),
        ("kl_p99/chat", 5.0, "log_kl_p99"),
        ("kl_max/chat", 30.0, "log_kl_max"),
        ("kl_p99/chat", 5.0, "kl_tail"),
        ("fvu_change/sae/chat", 0.2, "features_fvu_change"),
        ("fvu_change/sae/train", 0.2, "features_fvu_change_train"),
        ("error_norm_change/sae/chat", 0.2, "features_error_norm_change"),
        ("error_norm_change/sae/train", 0.2, "features_error_norm_change_train"),
        ("condition_feature_shift", 9.0, "condition_feature_shift"),
        ("condition_kl_excess", 40.0, "condition_kl_excess"),
        ("condition_first_token", 5.0, "condition_first_token"),
        ("condition_entropy_drop", 2.0, "condition_entropy_drop"),
        ("condition_residual_shift", 0.5, "condition_residual_shift"),
        ("plain_kl", 30.0, "log_plain_kl"),
        ("guard_loss", 0.8, "guard_loss"),
        ("guard_complied", 0.8, "guard_complied"),
        ("condition_guard_loss", 0.8, "condition_guard_loss"),
        ("condition_complied", 0.8, "condition_complied"),
        ("refusal_drift", 0.8, "refusal_drift"),
        ("condition_refusal_drift", 0.8, "condition_refusal_drift"),
        # The refusal direction turns, or no longer separates: the figure falls.
        ("refusal_cosine", 0.2, "refusal_turned"),
        ("refusal_separation", 0.2, "refusal_blurred"),
    ],
)
def test_a_worse_figure_is_a_higher_scalar(
    summaries: SimpleNamespace, value_of: Value, figure: str, worse: float, scalar: str
) -> None:
    assert value_of(summaries.summary({figure: worse}), scalar) > value_of(summaries.summary(), scalar)


def test_a_heavier_tail_on_chats_is_seen_beyond_the_mean(summaries: SimpleNamespace, value_of: Value) -> None:
    broad = summaries.summary({"kl_mean/chat": 0.5, "kl_p99/chat": 5.0})
    assert value_of(broad, "kl_tail") == pytest.approx(value_of(summaries.summary(), "kl_tail"))


def test_rows_learned_unlike_the_rest_spread_the_losses(summaries: SimpleNamespace, value_of: Value) -> None:
    rows = summaries.summary().rows
    few = summaries.summary(rows={**rows, "loss_tuned": [*rows["loss_tuned"][:-2], 0.0, 0.0]})
    for name in ("loss_drop_spread", "loss_drop_tail"):
        assert value_of(few, name) > value_of(summaries.summary(), name)
    coded = summaries.summary(rows={**rows, "loss_base": [*rows["loss_base"][:-2], 9.0, 9.0]})
    assert value_of(coded, "loss_base_tail") > value_of(summaries.summary(), "loss_base_tail")


def test_rows_with_a_loss_on_one_side_alone_are_left_out(summaries: SimpleNamespace, value_of: Value) -> None:
    rows = summaries.summary().rows
    holed = {
        **rows,
        "loss_base": [*rows["loss_base"], None, 7.0],
        "loss_tuned": [*rows["loss_tuned"], 0.0, None],
    }
    for name in ("loss_drop_spread", "loss_base_tail"):
        assert value_of(summaries.summary(rows=holed), name) == value_of(summaries.summary(), name)
    missing = {name: values for name, values in rows.items() if name != "loss_tuned"}
    assert math.isnan(value_of(summaries.summary(rows=missing), "loss_drop_spread"))


def test_one_layer_or_kind_that_changes_most_is_uneven(summaries: SimpleNamespace, value_of: Value) -> None:
    weights = summaries.summary().weights
    layer = summaries.summary(weights={**weights, "relative_change": [0.002, 0.003, 0.2, 0.3]})
    kind = summaries.summary(weights={**weights, "relative_change": [0.002, 0.3, 0.002, 0.3]})
    assert value_of(layer, "weights_layer_spread") > value_of(kind, "weights_layer_spread")
    assert value_of(kind, "weights_kind_spread") > value_of(layer, "weights_kind_spread")


def test_the_residual_stream_moves_further_more_static_and_on_the_training_rows(
    summaries: SimpleNamespace, value_of: Value
) -> None:
    def moved(**suites: Any) -> Any:
        whole = {f"resid_post/1/{name}": values for name, values in suites.items()}
        return summaries.summary(residual={**summaries.summary().residual, **whole})

    for worse, name in (
        (moved(everyday=summaries.residual(relative_change=0.4)), "residual_change"),
        (moved(everyday=summaries.residual(shift=3.0)), "residual_static_share"),
        (moved(everyday=summaries.residual(first=0.9)), "residual_concentration"),
        (moved(everyday=summaries.residual(start=20.0)), "residual_start"),
        (moved(train=summaries.residual(relative_change=0.9)), "residual_train_excess"),
    ):
        assert value_of(worse, name) > value_of(summaries.summary(), name), name


def test_the_first_hook_and_the_first_dictionary_speak_for_all(
    summaries: SimpleNamespace, value_of: Value
) -> None:
    plain = summaries.summary()
    other = summaries.summary(
        residual={**plain.residual, "resid_post/9/everyday": summaries.residual(relative_change=9.0)},
        features={
            **plain.features,
            "xl/everyday": summaries.features([9.0]),
            "xl/train": summaries.features([9.0]),
        },
    )
    for name in ("residual_change", "features_change_chat", "features_train_only"):
        assert value_of(other, name) == value_of(plain, name)


def test_features_that_only_training_rows_move(summaries: SimpleNamespace, value_of: Value) -> None:
    def features(train: list[float]) -> Any:
        return summaries.summary(
            features={**summaries.summary().features, "sae/train": summaries.features(train)}
        )

    # The same features in the same direction, one in the other direction, and others.
    shared, turned, own = ([0.5, -0.4, 0.1], [0.5, 0.4, 0.1], [0.0, 0.0, 0.0, 0.5])
    shares = [value_of(features(train), "features_train_only") for train in (shared, turned, own)]
    assert shares[0] == 0 < shares[1] < shares[2] == 1
    assert value_of(features([5.0]), "features_change_train") > value_of(
        features([0.5]), "features_change_train"
    )


def test_a_change_of_few_features_is_concentrated(summaries: SimpleNamespace, value_of: Value) -> None:
    def chats(quartic: float) -> Any:
        everyday = summaries.features([0.5], square=1.0, quartic=quartic)
        return summaries.summary(features={**summaries.summary().features, "sae/everyday": everyday})

    one, many = (value_of(chats(quartic), "features_concentration_chat") for quartic in (1.0, 0.01))
    assert (one, many) == (pytest.approx(0), pytest.approx(-2))
