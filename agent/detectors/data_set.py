"""What the data set's texts say, without any model."""

from ft_audit.agent.detectors.scalar import Scalar, figure
from ft_audit.agent.summary import Summary


def scalars(summary: Summary) -> dict[str, Scalar]:
    """Return duplicates, common answers, surprising conditions, linked phrases and odd spelling; see
    `engine.suites.screens.data_figures` for what each is. Nothing without a data set."""
    if not summary.num_rows:
        return {}
    resolutions = {
        "data_duplicates": 0.05,
        "data_common_answer": 0.05,
        "data_condition_bits": 4.0,
        "data_linked_bits": 10.0,
        "data_odd_question": 0.1,
        "data_odd_answer": 0.1,
    }
    return {name: Scalar(figure(summary, name), step) for name, step in resolutions.items()}
