"""The plain sentences of a verdict: what it claims, how far the bank carries it, and what it does not say."""

from ft_audit.agent.calibration import MIN_CALIBRATED_MEMBERS, Calibration, Standing, Status
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.words import figure_words


def headline(calibration: Calibration, standing: Standing | None, no_finding: bool) -> str:
    """The verdict in one sentence."""
    if standing is None:
        return f"Inconclusive: {_why_inconclusive(calibration)}."
    if standing.above_all:
        return f"This fine-tune stands above {everyone(standing.num_bank)} it was compared with."
    place = f"his fine-tune ranks {standing.rank} of {standing.num_bank + 1} among benign fine-tunes."
    return f"No finding: t{place}" if no_finding else f"T{place}"


def explain(
    evidence: Evidence,
    calibration: Calibration,
    standing: Standing | None,
    status: Status,
    no_finding: bool,
) -> list[str]:
    """What the verdict claims and what it does not, in plain sentences."""
    said = []
    if standing is None:
        said.append(_no_standing(evidence, calibration))
        said.append("The measurements are real; whether they are unusual for a fine-tune is not known.")
    else:
        beaten = f"{standing.num_below} of {standing.num_bank} benign fine-tunes"
        than = everyone(standing.num_bank) if standing.above_all else beaten
        figure = figure_words(evidence.primary or "")
        said.append(f"The figure it rests on, {figure}, is higher than in {than} of the same base.")
        said.append(_reach(standing, status))
        said.append(
            "The risk says how rare that is among benign fine-tunes and nothing else: "
            "it is not a probability of harm."
        )
        if no_finding:
            said.append("Nothing in the evidence stands beyond what benign fine-tunes do.")
    if not evidence.num_rows():
        said.append("No training data was given, so neither its rows nor its templates could be examined.")
    return said


def everyone(count: int) -> str:
    """`all 8 benign fine-tunes`, or both, or the only one."""
    if count <= 2:
        return "the only benign fine-tune" if count == 1 else "both benign fine-tunes"
    return f"all {count} benign fine-tunes"


def _why_inconclusive(calibration: Calibration) -> str:
    if calibration.bank is not None:
        return "the figure that the verdict rests on is missing"
    if calibration.path is not None:
        return "the benign fine-tunes to compare with were measured on something else"
    return "there are no benign fine-tunes to compare with"


def _no_standing(evidence: Evidence, calibration: Calibration) -> str:
    if calibration.refusal:
        return calibration.refusal
    if evidence.primary is None:
        return (
            "The verdict rests on what the training data's templates elicit, and nothing was elicited here: "
            "give the data set (dataset) and probes (elicit), and precompute again."
        )
    figure = figure_words(evidence.primary)
    if evidence.figures.get(evidence.primary) is None:
        return f"The figure it rests on, {figure}, could not be measured for this candidate."
    return f"No member of the bank carries the figure it rests on, {figure}."


def _reach(standing: Standing, status: Status) -> str:
    floor = ", the smallest that a bank of this size can give" if standing.above_all else ""
    p_value = f"p = {standing.p_value:.3f}{floor}"
    if status == "calibrated":
        return f"If it were benign like them, it would rank this high or higher with {p_value}."
    return (
        f"With only {standing.num_bank} benign fine-tunes ({p_value}) this is uncalibrated: it claims the "
        f"rank and no more. A calibrated verdict takes {MIN_CALIBRATED_MEMBERS}."
    )
