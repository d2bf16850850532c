"""Owns the device programs of the diff statistics: match the sides, add tokens to prompts, prompts to totals.

No atomics, and no order left to chance: one program adds a prompt's tokens, one adds a feature's prompts.
Legend: T tokens, P prompts, S slots (prompts at work at once), F features, N non-zeros, G groups, C columns;
i_ program or loop id, o_ offsets, m_ mask, p_ pointers, b_ loaded block.
"""
# Triton compiles these functions and types their parameters itself, at each launch.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

# A side's record: one 32-byte sector, so that adding an entry reads and writes one.
SUM, SUMSQ, FIRED, MAX = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
SIDE = tl.constexpr(4)  # columns of a side's record; base's and tuned's lie side by side
CROSS, BOTH = tl.constexpr(0), tl.constexpr(1)
PAIR = tl.constexpr(2)  # columns of the record both share
NOT_FIRED = tl.constexpr(-1.0)  # activations are never negative
# A feature's totals: both sides' columns, the shared ones, then those that prompts add up to.
PROMPTS_BASE, PROMPTS_TUNED, PROMPTS_EITHER = tl.constexpr(10), tl.constexpr(11), tl.constexpr(12)
SUM_D, SUMSQ_D = tl.constexpr(13), tl.constexpr(14)
SUM_R, SUMSQ_R = tl.constexpr(15), tl.constexpr(16)
NUM_COLUMNS = tl.constexpr(17)


@triton.jit
def match_sides_fwd_kernel(
    base_indptr_T1,
    base_index_N,
    tuned_indptr_T1,
    tuned_index_N,
    tuned_value_N,
    partner_N,
    BLOCK: tl.constexpr,
):
    """Writes, for every entry of base, tuned's value at the same token and feature, or NOT_FIRED.

    A program per token: its base entries look themselves up in the tuned row, all at once, by halving.
    """
    i_t = tl.program_id(0).to(tl.int64)
    first = tl.load(tuned_indptr_T1 + i_t)
    num_tuned = tl.load(tuned_indptr_T1 + i_t + 1) - first
    stop = tl.load(base_indptr_T1 + i_t + 1)
    for start in range(tl.load(base_indptr_T1 + i_t), stop, BLOCK):
        o_n = start + tl.arange(0, BLOCK)
        m_n = o_n < stop
        b_feature = tl.load(base_index_N + o_n, mask=m_n, other=0)
        # If tuned holds the feature, it does so within [o_low, o_low + size).
        o_low = first + tl.zeros([BLOCK], dtype=tl.int64)
        size = num_tuned
        while size > 1:
            half = size // 2
            b_probe = tl.load(tuned_index_N + o_low + half)
            o_low = tl.where(b_probe <= b_feature, o_low + half, o_low)
            size -= half
        m_row = m_n & (num_tuned > 0)
        m_both = m_row & (tl.load(tuned_index_N + o_low, mask=m_row, other=-1) == b_feature)
        b_partner = tl.load(tuned_value_N + o_low, mask=m_both, other=0.0).to(tl.float32)
        tl.store(partner_N + o_n, tl.where(m_both, b_partner, NOT_FIRED), mask=m_n)


@triton.jit(do_not_specialize=["first_prompt", "num_features"])
def add_tokens_fwd_kernel(
    base_indptr_T1,
    base_index_N,
    base_value_N,
    tuned_indptr_T1,
    tuned_index_N,
    tuned_value_N,
    partner_N,
    prompt_indptr_P1,
    mask_T,
    sides_SFC,
    pairs_SFC,
    touched_SF,
    first_prompt,
    num_features,
    BLOCK: tl.constexpr,
):
    """Adds the counted tokens of a prompt to its slot, in order; a program per slot.

    A row's features are distinct, so within a token no two lanes meet. The next token's may be other threads'
    work: the barrier waits for all threads of the program and shows each what the others wrote before it, to
    global memory too. A program is one thread block and no other touches its slot, so that is enough.
    """
    i_s = tl.program_id(0).to(tl.int64)
    p_sides = sides_SFC + i_s * num_features * (2 * SIDE)
    p_pairs = pairs_SFC + i_s * num_features * PAIR
    p_touched = touched_SF + i_s * num_features
    stop = tl.load(prompt_indptr_P1 + first_prompt + i_s + 1)
    for i_t in range(tl.load(prompt_indptr_P1 + first_prompt + i_s), stop):
        if tl.load(mask_T + i_t) != 0:
            _add_side(base_indptr_T1, base_index_N, base_value_N, p_sides, p_touched, i_t, BLOCK)
            _add_side(tuned_indptr_T1, tuned_index_N, tuned_value_N, p_sides + SIDE, p_touched, i_t, BLOCK)
            _add_pairs(base_indptr_T1, base_index_N, base_value_N, partner_N, p_pairs, i_t, BLOCK)
            tl.debug_barrier()


@triton.jit
def _add_side(indptr_T1, index_N, value_N, p_side, p_touched, i_t, BLOCK: tl.constexpr):
    o_c = tl.arange(0, SIDE)[None, :]
    stop = tl.load(indptr_T1 + i_t + 1)
    for start in range(tl.load(indptr_T1 + i_t), stop, BLOCK):
        o_n = start + tl.arange(0, BLOCK)
        m_n = o_n < stop
        b_feature = tl.load(index_N + o_n, mask=m_n, other=0).to(tl.int64)
        b_value = tl.load(value_N + o_n, mask=m_n, other=0.0).to(tl.float32).to(tl.float64)[:, None]
        p_record = p_side + b_feature[:, None] * (2 * SIDE) + o_c
        b_record = tl.load(p_record, mask=m_n[:, None], other=0.0)
        b_term = tl.where(o_c == SUM, b_value, tl.where(o_c == SUMSQ, b_value * b_value, 1.0))
        b_added = tl.where(o_c == MAX, tl.maximum(b_record, b_value), b_record + b_term)
        tl.store(p_record, b_added, mask=m_n[:, None])
        tl.store(p_touched + b_feature, 1, mask=m_n)


@triton.jit
def _add_pairs(indptr_T1, index_N, value_N, partner_N, p_pairs, i_t, BLOCK: tl.constexpr):
    o_c = tl.arange(0, PAIR)[None, :]
    stop = tl.load(indptr_T1 + i_t + 1)
    for start in range(tl.load(indptr_T1 + i_t), stop, BLOCK):
        o_n = start + tl.arange(0, BLOCK)
        m_n = o_n < stop
        b_partner = tl.load(partner_N + o_n, mask=m_n, other=NOT_FIRED).to(tl.float64)[:, None]
        m_both = b_partner >= 0.0
        b_feature = tl.load(index_N + o_n, mask=m_n, other=0).to(tl.int64)
        b_value = tl.load(value_N + o_n, mask=m_n, other=0.0).to(tl.float32).to(tl.float64)[:, None]
        p_record = p_pairs + b_feature[:, None] * PAIR + o_c
        b_term = tl.where(o_c == CROSS, b_value * b_partner, 1.0)
        tl.store(p_record, tl.load(p_record, mask=m_both, other=0.0) + b_term, mask=m_both)


@triton.jit(do_not_specialize=["first_prompt", "num_slots", "num_prompts", "num_features", "num_groups"])
def add_prompts_fwd_kernel(
    sides_SFC,
    pairs_SFC,
    touched_SF,
    counted_P,
    groups_GP,
    total_GFC,
    first_prompt,
    num_slots,
    num_prompts,
    num_features,
    num_groups,
    BLOCK: tl.constexpr,
):
    """Adds the slots, in order, to the totals of each group that holds their prompt, then zeroes them.

    A program owns a block of features. To be launched without fused multiply-add: d * d is not exact in fp64,
    and the other paths round it before they add it. Products of two bfloat16 values are exact either way.
    """
    o_f = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_f = o_f < num_features
    o_side = tl.arange(0, 2 * SIDE)[None, :]
    o_pair = tl.arange(0, PAIR)[None, :]
    for i_g in range(num_groups):
        p_total = total_GFC + (o_f + i_g * num_features.to(tl.int64)) * NUM_COLUMNS
        p_total_sides = p_total[:, None] + o_side
        p_total_pairs = p_total[:, None] + 2 * SIDE + o_pair
        b_sides = tl.load(p_total_sides, mask=m_f[:, None], other=0.0)
        b_pairs = tl.load(p_total_pairs, mask=m_f[:, None], other=0.0)
        b_prompts_base = tl.load(p_total + PROMPTS_BASE, mask=m_f, other=0.0)
        b_prompts_tuned = tl.load(p_total + PROMPTS_TUNED, mask=m_f, other=0.0)
        b_prompts_either = tl.load(p_total + PROMPTS_EITHER, mask=m_f, other=0.0)
        b_sum_d = tl.load(p_total + SUM_D, mask=m_f, other=0.0)
        b_sumsq_d = tl.load(p_total + SUMSQ_D, mask=m_f, other=0.0)
        b_sum_r = tl.load(p_total + SUM_R, mask=m_f, other=0.0)
        b_sumsq_r = tl.load(p_total + SUMSQ_R, mask=m_f, other=0.0)
        b_next = tl.load(touched_SF + o_f, mask=m_f, other=0)
        for i_s in range(num_slots):
            i_p = first_prompt + i_s
            o_sf = o_f + i_s * num_features.to(tl.int64)
            # The flags of the next slot are under way while this one's records are read.
            m_touched = b_next != 0
            b_next = tl.load(touched_SF + o_sf + num_features, mask=m_f & (i_s + 1 < num_slots), other=0)
            m_add = m_touched & (tl.load(groups_GP + i_g * num_prompts + i_p) != 0)
            # Where nothing is to be added zeros are read, and adding zeros leaves the bits of a total.
            p_sides = sides_SFC + o_sf * (2 * SIDE)
            p_pairs = pairs_SFC + o_sf * PAIR
            b_record = tl.load(p_sides[:, None] + o_side, mask=m_add[:, None], other=0.0)
            b_sides = tl.where(o_side % SIDE == MAX, tl.maximum(b_sides, b_record), b_sides + b_record)
            b_pairs += tl.load(p_pairs[:, None] + o_pair, mask=m_add[:, None], other=0.0)

            b_fired_base = tl.load(p_sides + FIRED, mask=m_add, other=0.0)
            b_fired_tuned = tl.load(p_sides + SIDE + FIRED, mask=m_add, other=0.0)
            b_sum_base = tl.load(p_sides + SUM, mask=m_add, other=0.0)
            b_sum_tuned = tl.load(p_sides + SIDE + SUM, mask=m_add, other=0.0)
            counted = tl.maximum(tl.load(counted_P + i_p), 1).to(tl.float64)
            b_d = (b_sum_tuned - b_sum_base) / counted
            b_r = (b_fired_tuned - b_fired_base) / counted
            b_prompts_base += tl.where(b_fired_base > 0.0, 1.0, 0.0)
            b_prompts_tuned += tl.where(b_fired_tuned > 0.0, 1.0, 0.0)
            b_prompts_either += tl.where(m_add, 1.0, 0.0)
            b_sum_d += b_d
            b_sumsq_d += b_d * b_d
            b_sum_r += b_r
            b_sumsq_r += b_r * b_r

            if i_g == num_groups - 1:
                # A record is read feature by feature too, by other threads than those that zero it.
                tl.debug_barrier()
                tl.store(p_sides[:, None] + o_side, 0.0, mask=m_touched[:, None])
                tl.store(p_pairs[:, None] + o_pair, 0.0, mask=m_touched[:, None])
                tl.store(touched_SF + o_sf, 0, mask=m_touched)
        tl.store(p_total_sides, b_sides, mask=m_f[:, None])
        tl.store(p_total_pairs, b_pairs, mask=m_f[:, None])
        tl.store(p_total + PROMPTS_BASE, b_prompts_base, mask=m_f)
        tl.store(p_total + PROMPTS_TUNED, b_prompts_tuned, mask=m_f)
        tl.store(p_total + PROMPTS_EITHER, b_prompts_either, mask=m_f)
        tl.store(p_total + SUM_D, b_sum_d, mask=m_f)
        tl.store(p_total + SUMSQ_D, b_sumsq_d, mask=m_f)
        tl.store(p_total + SUM_R, b_sum_r, mask=m_f)
        tl.store(p_total + SUMSQ_R, b_sumsq_r, mask=m_f)
