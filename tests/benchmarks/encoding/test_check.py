"""The check before any timing: every way agrees with float64, and a broken path of ours is refused."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ft_audit.benchmarks.encoding import ours
from ft_audit.benchmarks.encoding.case import Case, draw_dictionary, synthetic_residuals
from ft_audit.benchmarks.encoding.check import (
    Reference,
    WrongResultError,
    check_repeats,
    compare,
    make_reference,
)
from ft_audit.benchmarks.encoding.peers import PEERS
from ft_audit.benchmarks.encoding.way import Operands, Way, WayMissing, num_bytes, read_rows
from ft_audit.benchmarks.encoding.ways import build_way, chunk_rows, way_names
from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights, encode_naive
from ft_audit.kernels.sparse_rows import SparseRows

NUM_ROWS, D_IN, WIDTH = 300, 48, 700
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case() -> Case:
    x_TD = synthetic_residuals(NUM_ROWS, D_IN)
    return Case("test", "synthetic", x_TD, draw_dictionary(x_TD, WIDTH, l0=20.0))


@pytest.fixture(scope="module")
def reference(case: Case) -> Reference:
    return make_reference(case)


def a_way(encode: Callable[[Tensor], SparseRows]) -> Way:
    return Way("ours/test", "ours", encode, read_rows)


def edited(rows: SparseRows, **fields: Tensor) -> SparseRows:
    return replace(rows, **fields)


@pytest.mark.parametrize("b_dec", [False, True])
@pytest.mark.parametrize("name", way_names(CPU, NUM_ROWS, WIDTH))
@torch.inference_mode()
def test_every_way_agrees_with_float64(case: Case, name: str, b_dec: bool) -> None:
    if b_dec:
        offset_D = 0.25 * torch.randn(D_IN, generator=torch.Generator().manual_seed(3))
        weights = case.weights
        # The bias takes back what the offset changes, so that as many features fire.
        b_enc_F = weights.b_enc_F + offset_D @ weights.w_enc_DF.float()
        case = replace(
            case, weights=JumpReluWeights(weights.w_enc_DF, b_enc_F, weights.threshold_F, offset_D)
        )
    reference = make_reference(case)
    try:
        way = build_way(name, Operands(case.weights), chunk=128, k=20)
    except WayMissing as missing:
        pytest.skip(str(missing))
    result = way.encode(case.x_TD)
    if way.read is None:
        assert way.kind == "limit"
        return
    found = compare(way, result, reference, case.num_rows)
    # float32 sums differ from float64 on next to nothing; bfloat16 rounding near massive dimensions on more.
    exact = way.kind == "ours" or name.endswith("fp32")
    assert found.flips_per_token <= (0.05 if exact else 0.15 * 20)
    assert num_bytes(result) >= 6 * 10 * NUM_ROWS


@torch.inference_mode()
def test_the_plans_of_the_gpu_path_agree_with_float64(case: Case, reference: Reference) -> None:
    pytest.importorskip("triton")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton needs a GPU or its interpreter")
    names = [name for name in ours.names(torch.device("cuda"), WIDTH) if "triton" in name]
    assert len(names) == 2
    assert len(ours.names(torch.device("cuda"), WIDTH, every_plan=True)) > len(names) + 2
    for name in names:
        way = ours.build(name, case.weights)
        found = compare(way, way.encode(case.x_TD), reference, case.num_rows)
        assert found.flips_per_token < 0.1


def test_a_result_without_a_feature_is_refused(case: Case, reference: Reference) -> None:
    def drop_the_largest(x_TD: Tensor) -> SparseRows:
        rows = encode_naive(x_TD, case.weights)
        kept_N = torch.ones(rows.num_nonzeros, dtype=torch.bool)
        kept_N[int(rows.value_N.argmax())] = False
        row = int(torch.searchsorted(rows.indptr_T1, int(rows.value_N.argmax()), right=True)) - 1
        indptr_T1 = rows.indptr_T1.clone()
        indptr_T1[row + 1 :] -= 1
        return edited(rows, indptr_T1=indptr_T1, index_N=rows.index_N[kept_N], value_N=rows.value_N[kept_N])

    # As many rows as are sampled, so that the one entry is among them.
    whole = replace(case, x_TD=case.x_TD[: len(reference.row_R)])
    way = a_way(drop_the_largest)
    with pytest.raises(WrongResultError, match="ours/test: wrong support of 1 entries"):
        compare(way, way.encode(whole.x_TD), make_reference(whole), whole.num_rows)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        # Thresholds ignored, biases ignored, weights of another dictionary, weights off by a little.
        (lambda w: replace(w, threshold_F=torch.zeros(WIDTH)), "wrong support"),
        (lambda w: replace(w, b_enc_F=torch.zeros(WIDTH)), "wrong support"),
        (lambda w: replace(w, w_enc_DF=w.w_enc_DF.roll(1, 1).contiguous()), "wrong support"),
        (lambda w: replace(w, w_enc_DF=(w.w_enc_DF * 1.02).bfloat16()), "wrong"),
    ],
)
def test_an_encoder_of_another_formula_is_refused(
    case: Case, reference: Reference, broken: Callable[[JumpReluWeights], JumpReluWeights], says: str
) -> None:
    way = a_way(Encoder(broken(case.weights), "cpu").encode)
    with pytest.raises(WrongResultError, match=says):
        compare(way, way.encode(case.x_TD), reference, case.num_rows)


def test_values_that_are_off_are_refused(case: Case, reference: Reference) -> None:
    def inflate(x_TD: Tensor) -> SparseRows:
        rows = encode_naive(x_TD, case.weights)
        return edited(rows, value_N=(rows.value_N.float() * 1.02).bfloat16())

    way = a_way(inflate)
    with pytest.raises(WrongResultError, match="wrong value"):
        compare(way, way.encode(case.x_TD), reference, case.num_rows)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: edited(rows, index_N=rows.index_N.flip(0)),
        lambda rows: edited(rows, index_N=rows.index_N + WIDTH),
        lambda rows: edited(rows, indptr_T1=rows.indptr_T1[:-1]),
    ],
)
def test_malformed_rows_are_refused(
    case: Case, reference: Reference, spoil: Callable[[SparseRows], SparseRows]
) -> None:
    way = a_way(lambda x_TD: spoil(encode_naive(x_TD, case.weights)))
    with pytest.raises(WrongResultError, match="malformed"):
        compare(way, way.encode(case.x_TD), reference, case.num_rows)


def test_runs_that_differ_are_refused(case: Case) -> None:
    first = encode_naive(case.x_TD, case.weights)
    way = a_way(lambda _x_TD: first)
    check_repeats(way, first, edited(first, value_N=first.value_N.clone()))
    other_N = first.value_N.clone()
    other_N.view(torch.int16)[0] += 1
    with pytest.raises(WrongResultError, match="two runs"):
        check_repeats(way, first, edited(first, value_N=other_N))


def test_a_peer_s_flips_are_counted_not_refused(case: Case, reference: Reference) -> None:
    nothing = SparseRows(
        torch.zeros(NUM_ROWS + 1, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int32),
        torch.zeros(0, dtype=torch.bfloat16),
        WIDTH,
    )
    way = Way("peer", "peer", lambda _x_TD: nothing, read_rows)
    assert compare(way, nothing, reference, NUM_ROWS).flips_per_token == pytest.approx(reference.l0)


def test_the_band_leaves_next_to_nothing_undecided(case: Case, reference: Reference) -> None:
    way = a_way(Encoder(case.weights, "cpu").encode)
    found = compare(way, way.encode(case.x_TD), reference, case.num_rows)
    assert found.undecided_per_token < 0.5  # of WIDTH features, 20 of which fire
    assert found.flips_per_token == 0.0


def test_peers_without_their_library_say_so(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("ft_audit.benchmarks.encoding.peers.import_module", absent)
    for name in ("saelens-fp32", "saelens-bf16", "sparsify-topk-fp32", "sparsify-topk-bf16"):
        with pytest.raises(WayMissing, match="not installed"):
            PEERS[name](Operands(case.weights), 128, 20)
    assert PEERS["delphi-fp32"](Operands(case.weights), 128, 20).name == "delphi-fp32"


def test_chunks_bound_a_dense_tensor() -> None:
    assert chunk_rows(CPU, 1024, 16_384) == 1024
    assert chunk_rows(CPU, 1024, 262_144) == 256
    assert ours.names(CPU, 262_144) == [name for name in ours.names(CPU, 4096) if name != "ours/naive"]
