"""Compiles the fused program of every row of the table for its device, and says what it needs.

    python compile_case.py     one line of JSON on stdout for each row

Needs Triton's compiler and no GPU; TRITON_INTERPRET must not be set.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ft_audit.kernels.jumprelu.triton_kernels import jumprelu_fused_fwd_kernel
from ft_audit.kernels.jumprelu.triton_plans import TABLE, FusedPlan, Row

TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"


def compiled(row: Row, plan: FusedPlan) -> dict[str, Any]:
    operand = "*bf16" if row.dtype == "bfloat16" else "*fp32"
    pointers = {"x_MK": operand, "w_KF": operand, "bias_F": "*fp32", "cut_F": "*fp32", "start_S": "*i64"}
    pointers |= {"limit_S": "*i32", "count_S": "*i32", "index_E": "*i32", "value_E": "*bf16"}
    numbers = dict.fromkeys(("num_rows", "d_in", "width", "tiles_per_split"), "i32")
    constants = {"BM": plan.rows, "BN": plan.features, "BK": plan.depth, "EVEN_K": True, "EVEN_F": True}
    constants |= {"IN_BFLOAT16": row.dtype == "bfloat16", "INTERPRET": False}
    signature = pointers | numbers | dict.fromkeys(constants, "constexpr")
    # What a launch with these shapes would know: addresses and both sizes are multiples of 16.
    names = list(signature)
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in (*pointers, "d_in", "width")}
    source = ASTSource(jumprelu_fused_fwd_kernel, signature, constants, aligned)
    target = GPUTarget("cuda", 10 * row.capability[0] + row.capability[1], 32)
    options = {"num_warps": plan.num_warps, "num_stages": plan.num_stages}
    kernel = triton.compile(source, target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        tool = [str(TOOLS / "cuobjdump"), "-res-usage", file.name]
        usage = subprocess.run(tool, capture_output=True, text=True, check=True).stdout

    def used(what: str) -> int:
        (number,) = re.findall(rf"{what}:(\d+)", usage)
        return int(number)

    return {
        "capability": row.capability,
        "plan": str(plan),
        "programs_a_core": plan.programs_a_core,
        "threads": 32 * plan.num_warps,
        "shared_bytes": kernel.metadata.shared,
        "stack_bytes": used("STACK"),
        "registers": used("REG"),
    }


if __name__ == "__main__":
    for each in TABLE:
        if isinstance(each.plan, FusedPlan):
            print(json.dumps(compiled(each, each.plan)), flush=True)
