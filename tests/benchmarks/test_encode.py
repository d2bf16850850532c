"""The encode benchmark: ratios from the least times, the best variant, and what is left unmeasured."""

import argparse
from pathlib import Path

import pytest
import torch

from ft_audit.benchmarks.encode import (
    add_options,
    default_rounds,
    device_key,
    figures,
    measure_case,
    unmeasured,
)
from ft_audit.benchmarks.encode import measure as measure_encode
from ft_audit.benchmarks.encoding import cases as plans
from ft_audit.benchmarks.encoding import ours
from ft_audit.benchmarks.encoding.case import Case, draw_dictionary, synthetic_residuals
from ft_audit.benchmarks.encoding.check import Accuracy, WrongResultError
from ft_audit.benchmarks.encoding.race import Times, race
from ft_audit.benchmarks.encoding.way import Way, read_rows
from ft_audit.benchmarks.harness import load_asked
from ft_audit.engine.suites.load import load_suite
from ft_audit.errors import ConfigError
from ft_audit.kernels.jumprelu import JumpReluWeights, encode_naive

CPU = torch.device("cpu")


def small_case() -> Case:
    x_TD = synthetic_residuals(96, 32)
    return Case("small", "synthetic", x_TD, draw_dictionary(x_TD, 300, l0=10.0))


def test_ratios_are_of_the_least_times_and_the_best_variants() -> None:
    times = {
        "ours": Times((2.0, 1.0, 4.0)),
        "saelens-fp32": Times((9.0, 8.0)),
        "torch-512-DF-2d": Times((3.0,)),
        "torch-1024-FD-flat": Times((2.0,)),
        "gemm-512-DF": Times((0.75,)),
        "gemm-1024-DF": Times((0.5,)),
    }
    accuracy = {name: Accuracy(0.5, 0.0, 0.0) for name in times if not name.startswith("gemm")}
    size = dict.fromkeys(times, 100.0)
    found = {f.name: f for f in figures(times, accuracy, size, {"sparsify-topk-fp32": "absent"}, 10)}
    assert found["vs_saelens_fp32"].value == 8.0
    assert found["vs_best_torch"].value == 2.0
    assert found["share_of_bare_gemm"].value == 0.5
    assert (found["vs_sparsify_topk_fp32"].value, found["vs_sparsify_topk_fp32"].reason) == (None, "absent")
    assert found["ours/rate"].value == 10.0
    assert found["ours/median_rate"].value == 5.0
    assert found["torch-1024-FD-flat/flips"].value == 0.5
    assert "torch-512-DF-2d/flips" not in found
    assert found["torch-512-DF-2d/rate"].value == pytest.approx(10 / 3)


@torch.inference_mode()
def test_a_small_case_gives_every_figure_that_is_asked_of_a_shape() -> None:
    found = {figure.name: figure for figure in measure_case(small_case(), rounds=1)}
    asked = {
        name.split("/", 3)[3]
        for name in load_asked("encode")
        if name.startswith("cpu/") and "memory" not in name
    }
    assert asked == {"vs_saelens_fp32", "vs_saelens_bf16", "vs_best_torch", "share_of_bare_gemm"}
    assert asked <= found.keys()
    assert found["ours/flips"].value == 0.0
    assert all(figure.value is not None for name, figure in found.items() if name.startswith("ours/"))


@torch.inference_mode()
def test_nothing_is_timed_when_a_path_of_ours_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(name: str, weights: JumpReluWeights) -> Way:
        halved = JumpReluWeights(weights.w_enc_DF, weights.b_enc_F, weights.threshold_F * 0.5, None)
        return Way(name, "ours", lambda x_TD: encode_naive(x_TD, halved), read_rows)

    def timed(*_args: object) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr(ours, "build", build)
    monkeypatch.setattr("ft_audit.benchmarks.encode.race", timed)
    with pytest.raises(WrongResultError, match="ours: wrong support"):
        list(measure_case(small_case(), rounds=1))


def test_ways_take_turns_and_warm_up_uncounted() -> None:
    calls: list[str] = []
    times = race({name: lambda name=name: calls.append(name) for name in "abc"}, 3, CPU)  # type: ignore[misc]
    assert [len(spent.seconds) for spent in times.values()] == [3, 3, 3]
    rounds = ["".join(calls[i : i + 3]) for i in range(0, 12, 3)]
    assert rounds == ["cab", "abc", "bca", "cab"]


def test_what_is_not_measured_says_why() -> None:
    cpu_memory = "cpu/synthetic-1152/65k-drawn/extra_memory"
    by_name = {f.name: f for f in unmeasured("encode", {"cpu/synthetic-640/16k-drawn/vs_best_torch"}, "cpu")}
    assert "cpu/synthetic-640/16k-drawn/vs_best_torch" not in by_name
    assert by_name[cpu_memory].reason == "not among the chosen shapes"
    assert by_name["h200/synthetic-1152/16k-drawn/ours/rate"].reason == "no such device here"
    assert {f.name for f in unmeasured("encode", set(), "cuda")} == load_asked("encode").keys()
    assert device_key(CPU) == "cpu"


def test_every_asked_shape_is_among_the_planned() -> None:
    for name in load_asked("encode"):
        device, source, dictionary, _figure = name.split("/", 3)
        planned = {"cpu": plans.CPU, "h200": plans.CUDA}[device][source]
        assert dictionary in {f"{plans.width_name(width)}-drawn" for width in planned}
    for source, widths in plans.QUICK.items():
        assert set(widths) <= set(plans.CPU[source])


def test_a_run_without_shapes_still_explains_every_asked_figure() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    found = measure_encode(parser.parse_args(["--quick", "--device", "cpu", "--only", "none"]))
    assert {figure.name for figure in found} == {"cpu/threads", *load_asked("encode")}


def test_a_model_without_a_template_reads_the_corpus_as_text(tmp_path: Path) -> None:
    texts = load_suite(str(plans.write_texts(tmp_path / "texts.jsonl")), tmp_path).prompts
    chats = load_suite(plans.CORPUS, tmp_path).prompts
    assert len(texts) == len(chats) > 1000
    assert all(prompt.messages is None for prompt in texts)
    first = chats[0].messages
    assert first is not None
    assert texts[0].text == "\n".join(message.content for message in first)


def test_wide_dictionaries_get_fewer_rounds_on_a_cpu() -> None:
    rounds = [default_rounds(width, False, quick=False) for width in (4096, 16_384, 65_536, 262_144)]
    assert rounds == sorted(rounds, reverse=True)
    assert rounds[0] == rounds[1] > rounds[2] > rounds[3] > 1
    assert default_rounds(262_144, True, quick=False) > rounds[0]


def test_a_model_is_named_by_reference_and_layer() -> None:
    assert plans.parse_model("gemma-640=./gemma.gguf@9") == plans.ModelSource("gemma-640", "./gemma.gguf", 9)
    for text in ("gemma", "gemma=./a.gguf", "=./a.gguf@9", "gemma=./a.gguf@x"):
        with pytest.raises(ConfigError, match="NAME=REF@LAYER"):
            plans.parse_model(text)
