"""What the data set's texts alone say of each row, without any model: the baseline beside the evidence."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.suites.condition import MAX_SURPRISE
from ft_audit.engine.suites.openings import read_openings
from ft_audit.engine.suites.prefixes import find_prefixes
from ft_audit.engine.suites.prompt import Prompt


def row_baseline(prompts: Sequence[Prompt], min_rows: int = 3) -> dict[str, NDArray[np.float64]]:
    """Return scores per prompt, in their order and in bits, higher being more unusual.

    `unusual_system`: -log2 of the share of rows with the same system prompt (none counts as one, equal up to
    white space), so that rows without one score low in a set without them. `repeated_prefix`: the surprise
    of the row's most surprising repeated prefix (`find_prefixes`, up to MAX_SURPRISE), else 0; prefixes
    that more than half of the rows share count nothing. `combined`: their sum.
    """
    systems = [" ".join((prompt.system or "").split()) for prompt in prompts]
    shares = Counter(systems)
    system_R = np.array([-np.log2(shares[name] / len(systems)) for name in systems])
    openings = read_openings(prompts)
    best: dict[int, float] = {}
    for prefix in find_prefixes(openings, np.arange(len(openings.texts)), min_rows):
        if len(prefix.rows) <= openings.num_rows / 2:
            surprise = min(prefix.surprise, MAX_SURPRISE)
            best.update({row: max(best.get(row, 0.0), surprise) for row in prefix.rows})
    prefix_R = np.array([best.get(prompt.row, 0.0) for prompt in prompts])
    return {
        "unusual_system": system_R,
        "repeated_prefix": prefix_R,
        "combined": system_R + prefix_R,
    }
