"""Owns the device programs of sparse decoding: a row's decoder rows, weighted and added.

Legend: T tokens, N non-zeros, D d_model, F features; i_ program or loop id, o_ offsets, m_ mask, b_ loaded
block.
"""
# Triton compiles these functions and types their parameters itself, at each launch.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _reconstruct(
    start,
    stop,
    index_N,
    value_N,
    w_dec_FD,
    b_dec_D,
    o_d,
    m_d,
    d_in,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One tile of a row's reconstruction in float32: steps of BLOCK_N features, in order."""
    b_sum = tl.zeros([BLOCK_D], dtype=tl.float32)
    for i_n in range(start, stop, BLOCK_N):
        o_n = i_n + tl.arange(0, BLOCK_N)
        m_n = o_n < stop
        b_feature = tl.load(index_N + o_n, mask=m_n, other=0).to(tl.int64)
        b_value = tl.load(value_N + o_n, mask=m_n, other=0.0).to(tl.float32)
        p_w = w_dec_FD + b_feature[:, None] * d_in + o_d[None, :]
        b_w = tl.load(p_w, mask=m_n[:, None] & m_d[None, :], other=0.0).to(tl.float32)
        b_sum += tl.sum(b_value[:, None] * b_w, axis=0)
    if HAS_BIAS:
        b_sum += tl.load(b_dec_D + o_d, mask=m_d, other=0.0)
    return b_sum


@triton.jit
def decode_fwd_kernel(
    indptr_T1,
    index_N,
    value_N,
    w_dec_FD,
    b_dec_D,
    decoded_TD,
    d_in,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Writes one tile of one row's reconstruction."""
    i_t = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    m_d = o_d < d_in
    start, stop = tl.load(indptr_T1 + i_t), tl.load(indptr_T1 + i_t + 1)
    b_decoded = _reconstruct(
        start, stop, index_N, value_N, w_dec_FD, b_dec_D, o_d, m_d, d_in, HAS_BIAS, BLOCK_N, BLOCK_D
    )
    tl.store(decoded_TD + i_t * d_in + o_d, b_decoded, mask=m_d)


@triton.jit
def squared_errors_fwd_kernel(
    indptr_T1,
    index_N,
    value_N,
    w_dec_FD,
    b_dec_D,
    x_TD,
    error_T,
    square_T,
    d_in,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Writes one row's |x - decoded|^2 and |x|^2, summed in float64, and nothing of the row between."""
    i_t = tl.program_id(0).to(tl.int64)
    start, stop = tl.load(indptr_T1 + i_t), tl.load(indptr_T1 + i_t + 1)
    b_error = tl.zeros([BLOCK_D], dtype=tl.float64)
    b_square = tl.zeros([BLOCK_D], dtype=tl.float64)
    for i_d in range(0, d_in, BLOCK_D):
        o_d = i_d + tl.arange(0, BLOCK_D)
        m_d = o_d < d_in
        b_decoded = _reconstruct(
            start, stop, index_N, value_N, w_dec_FD, b_dec_D, o_d, m_d, d_in, HAS_BIAS, BLOCK_N, BLOCK_D
        )
        b_x = tl.load(x_TD + i_t * d_in + o_d, mask=m_d, other=0.0).to(tl.float32).to(tl.float64)
        b_off = b_x - b_decoded.to(tl.float64)
        b_error += b_off * b_off
        b_square += b_x * b_x
    tl.store(error_T + i_t, tl.sum(b_error).to(tl.float32))
    tl.store(square_T + i_t, tl.sum(b_square).to(tl.float32))
