"""Owns the device programs of the Triton encoder: find what fires, and pack the finds into CSR.

A program owns some rows and walks tiles of features in ascending order with one cursor a row, so there are no
atomics and nothing depends on timing. A sub-row is the part of a row that one program walks; it owns `limit`
slots from `start` on, and finds past them are counted but not stored.

Legend: M rows, K d_model, F features, BM/BN/BK tile sizes, NW words of 32 features in a tile, S sub-rows;
i_ program or loop id, o_ offsets, m_ mask, p_ pointers, b_ loaded block.
"""

# Triton compiles these functions and types their parameters itself, at each launch.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def _popcount(b_word, INTERPRET: tl.constexpr):
    if INTERPRET:  # it has no device library
        b_half = b_word.to(tl.uint32, bitcast=True)
        b_half = b_half - ((b_half >> 1) & 0x55555555)
        b_half = (b_half & 0x33333333) + ((b_half >> 2) & 0x33333333)
        b_half = (b_half + (b_half >> 4)) & 0x0F0F0F0F
        return ((b_half * 0x01010101) >> 24).to(tl.int32)
    return libdevice.popc(b_word)


@triton.jit
def _round_to_bfloat16(b_value, INTERPRET: tl.constexpr):
    if INTERPRET:  # it truncates; this is round to nearest, ties to even, for finite values and infinity
        b_bits = b_value.to(tl.uint32, bitcast=True)
        b_bits = b_bits + 0x7FFF + ((b_bits >> 16) & 1)
        return (b_bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return b_value.to(tl.bfloat16)


@triton.jit
def _append_tile(
    b_acc,
    b_cut,
    bias_F,
    first_feature,
    b_start,
    b_limit,
    b_cursor,
    index_E,
    value_E,
    BM: tl.constexpr,
    BN: tl.constexpr,
    INTERPRET: tl.constexpr,
):
    """Stores what fires in a tile of accumulators behind each row's cursor; returns the cursors after it.

    Every operation on the whole tile costs as much as several steps of the product, and a scan along it also
    a trip through shared memory and thousands of spilled registers. So hits are packed into words of 32
    features by a reduction, which stays in the registers of the product's layout, and ranks come from the
    words. Then each round takes the lowest hit of every word; most words have none, few have two.
    """
    NW: tl.constexpr = BN // 32
    o_bit = tl.arange(0, 32)
    # Compared before the reshape: after it, the compiler would move every accumulator through shared memory.
    b_hit = tl.where(b_acc > b_cut[None, :], (1 << tl.arange(0, BN) % 32)[None, :], 0)
    b_word = tl.sum(tl.reshape(b_hit, (BM, NW, 32)), axis=2)
    b_acc = tl.reshape(b_acc, (BM, NW, 32))
    b_num = _popcount(b_word, INTERPRET)
    b_rank = b_cursor[:, None] + tl.cumsum(b_num, axis=1) - b_num
    o_first = first_feature + 32 * tl.arange(0, NW)[None, :]
    for _ in range(tl.max(tl.max(b_num, axis=1), axis=0)):
        b_lowest = b_word & -b_word
        b_bit = _popcount(b_lowest - 1, INTERPRET)
        m_live = b_word != 0
        # One addend of 32 is not zero: the sum is that accumulator, exactly.
        b_value = tl.sum(tl.where(o_bit[None, None, :] == b_bit[:, :, None], b_acc, 0.0), axis=2)
        b_value += tl.load(bias_F + o_first + b_bit, mask=m_live, other=0.0)
        m_store = m_live & (b_rank < b_limit[:, None])
        o_slot = b_start[:, None] + b_rank
        tl.store(index_E + o_slot, o_first + b_bit, mask=m_store)
        tl.store(value_E + o_slot, _round_to_bfloat16(b_value, INTERPRET), mask=m_store)
        b_rank += 1
        b_word ^= b_lowest
    return b_cursor + tl.sum(b_num, axis=1)


@triton.jit(do_not_specialize=["num_rows", "tiles_per_split"])
def jumprelu_fused_fwd_kernel(
    x_MK,
    w_KF,
    bias_F,
    cut_F,
    start_S,
    limit_S,
    count_S,
    index_E,
    value_E,
    num_rows,
    d_in,
    width,
    tiles_per_split,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_F: tl.constexpr,
    IN_BFLOAT16: tl.constexpr,
    INTERPRET: tl.constexpr,
):
    """Grid (row blocks, splits): rows run fastest, so programs at work together read the same features.

    `num_rows` is not specialized on: a replay of a few rows must run the very program of the first pass.
    """
    i_m, i_s = tl.program_id(0), tl.program_id(1)
    o_m = i_m * BM + tl.arange(0, BM)
    m_m = o_m < num_rows
    # Rows past the end repeat the last one and own no slots, which costs no mask in the inner loop.
    o_x = tl.minimum(o_m, num_rows - 1).to(tl.int64) * d_in
    o_k = tl.arange(0, BK)
    o_s = o_m * tl.num_programs(1) + i_s
    b_start = tl.load(start_S + o_s, mask=m_m, other=0)
    b_limit = tl.load(limit_S + o_s, mask=m_m, other=0)
    b_cursor = tl.zeros((BM,), tl.int32)

    first_tile = i_s * tiles_per_split
    last_tile = tl.minimum(first_tile + tiles_per_split, tl.cdiv(width, BN))
    for i_n in range(first_tile, last_tile):
        o_f = i_n * BN + tl.arange(0, BN)
        m_f = o_f < width
        p_x = x_MK + o_x[:, None] + o_k[None, :]
        p_w = w_KF + o_k.to(tl.int64)[:, None] * width + o_f[None, :]
        b_acc = tl.zeros((BM, BN), tl.float32)
        for i_k in range(0, d_in, BK):
            if EVEN_K:
                b_x = tl.load(p_x)
            else:
                b_x = tl.load(p_x, mask=(o_k < d_in - i_k)[None, :], other=0.0)
            if EVEN_K and EVEN_F:
                b_w = tl.load(p_w)
            elif EVEN_K:
                b_w = tl.load(p_w, mask=m_f[None, :], other=0.0)
            else:
                b_w = tl.load(p_w, mask=(o_k < d_in - i_k)[:, None] & m_f[None, :], other=0.0)
            if IN_BFLOAT16 and not INTERPRET:
                b_acc = tl.dot(b_x, b_w, b_acc)
            else:
                # Three products of tf32 halves, never one: a float32 within 3 * 2^-22 of each product.
                b_acc = tl.dot(b_x.to(tl.float32), b_w.to(tl.float32), b_acc, input_precision="tf32x3")
            p_x += BK
            p_w += BK * width
        b_cut = tl.load(cut_F + o_f, mask=m_f, other=float("inf"))
        b_cursor = _append_tile(
            b_acc, b_cut, bias_F, i_n * BN, b_start, b_limit, b_cursor, index_E, value_E, BM, BN, INTERPRET
        )
    tl.store(count_S + o_s, b_cursor, mask=m_m)


@triton.jit(do_not_specialize=["num_rows", "first_feature"])
def jumprelu_append_fwd_kernel(
    product_MF,
    bias_F,
    cut_F,
    start_M,
    limit_M,
    count_M,
    index_E,
    value_E,
    num_rows,
    first_feature,
    num_features,
    BM: tl.constexpr,
    BN: tl.constexpr,
    INTERPRET: tl.constexpr,
):
    """Grid (row blocks): the epilogue alone, on a block of ready products; `count_M` carries the cursors."""
    o_m = tl.program_id(0) * BM + tl.arange(0, BM)
    m_m = o_m < num_rows
    b_start = tl.load(start_M + o_m, mask=m_m, other=0)
    b_limit = tl.load(limit_M + o_m, mask=m_m, other=0)
    b_cursor = tl.load(count_M + o_m, mask=m_m, other=0)
    p_product = product_MF + o_m.to(tl.int64)[:, None] * num_features
    for i_f in range(0, num_features, BN):
        o_f = i_f + tl.arange(0, BN)
        m_f = o_f < num_features
        b_acc = tl.load(p_product + o_f[None, :], mask=m_m[:, None] & m_f[None, :], other=0.0)
        b_cut = tl.load(cut_F + first_feature + o_f, mask=m_f, other=float("inf"))
        first = first_feature + i_f
        b_cursor = _append_tile(
            b_acc, b_cut, bias_F, first, b_start, b_limit, b_cursor, index_E, value_E, BM, BN, INTERPRET
        )
    tl.store(count_M + o_m, b_cursor, mask=m_m)


@triton.jit(do_not_specialize=["num_subrows", "slots"])
def pack_rows_fwd_kernel(
    index_E,
    value_E,
    count_S,
    end_S,
    index_N,
    value_N,
    num_subrows,
    slots,
    BS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid (blocks of sub-rows): copies the finds of each to their place in CSR, unless it overflowed."""
    o_s = tl.program_id(0) * BS + tl.arange(0, BS)
    m_s = o_s < num_subrows
    b_count = tl.load(count_S + o_s, mask=m_s, other=0)
    b_to = tl.load(end_S + o_s, mask=m_s, other=0) - b_count
    b_from = o_s.to(tl.int64) * slots
    b_count = tl.where(b_count <= slots, b_count, 0)
    for i_e in range(0, tl.max(b_count, axis=0), BLOCK):
        o_e = i_e + tl.arange(0, BLOCK)[None, :]
        m_e = o_e < b_count[:, None]
        b_index = tl.load(index_E + b_from[:, None] + o_e, mask=m_e)
        tl.store(index_N + b_to[:, None] + o_e, b_index, mask=m_e)
        b_value = tl.load(value_E + b_from[:, None] + o_e, mask=m_e)
        tl.store(value_N + b_to[:, None] + o_e, b_value, mask=m_e)
