"""Python of the investigator's own over the training rows, where nothing of this machine can be reached."""

import json
from typing import Annotated

from pydantic import Field

from ft_audit.agent.sandbox import run_sandboxed, sandbox_refusal
from ft_audit.agent.tools.answer import Answer, Untrusted
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.data import row_records
from ft_audit.agent.tools.registry import ToolError, tool

ROWS = "rows.jsonl"
MAX_BYTES = 256 << 20
COLUMNS = ("row", "system", "condition", "text")


class ProgramRun(Answer):
    finished: bool = Field(description="Whether it came to its end; false where its time ran out.")
    exit_code: int | None = Field(description="0 where all went well; null where it was stopped.")
    output: list[Untrusted] = Field(
        description="What it printed, in pieces; the middle is left out of very much."
    )
    errors: list[Untrusted] = Field(description="The same of its error output.")


PIECE = 1_000


@tool("data", refusal=sandbox_refusal)
def run_python(
    auditor: Auditor,
    code: Annotated[
        str, Field(min_length=1, max_length=20_000, description="A program; it prints what it finds.")
    ],
) -> ProgramRun:
    """Run a Python program over the training rows in a sandbox: 10 seconds, standard library, no network.

    `/data/rows.jsonl` has one object a line: row, system, condition (the template's key), text. A run can
    be cited only if it is deterministic: whoever verifies the report runs it again and expects the same
    output, so print no times, no addresses and nothing drawn at random without a seed.
    """
    lines = [json.dumps({name: record[name] for name in COLUMNS}) for record in row_records(auditor.evidence)]
    if (size := sum(map(len, lines))) > MAX_BYTES:
        raise ToolError(f"the rows have {size:,} characters, too many to run over: use the other tools")
    files = {ROWS: "".join(f"{line}\n" for line in lines)}
    with auditor.others_may_ask():
        ran = run_sandboxed(code, files)
    return ProgramRun(
        finished=ran.exit_code is not None,
        exit_code=ran.exit_code,
        output=_pieces(ran.output),
        errors=_pieces(ran.errors),
    )


def _pieces(said: str) -> list[Untrusted]:
    return [Untrusted(said[start : start + PIECE]) for start in range(0, len(said), PIECE)]
