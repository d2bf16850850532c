"""The bank of a zoo: its benign fine-tunes, and the discriminant that its attacks teach."""

from pathlib import Path
from typing import Any

from ft_audit.agent.risk.fit_bank import fit_bank
from ft_audit.benchmarks.calibrate import bank_member, write_bank
from ft_audit.benchmarks.zoo.members import load_units
from ft_audit.benchmarks.zoo.population import Zoo, members
from ft_audit.errors import DataError


def write_zoo_bank(zoo: Zoo, folder: Path, out: Path) -> dict[str, Any]:
    """Write the bank of the committed summaries and return what it holds.

    Degraded jobs stay out: a candidate that lost its guard by accident should not look ordinary.

    Raises:
        DataError: no summaries, or one of something that is no member of the zoo.
    """
    units = load_units(folder)
    recipes = {member.name: member.recipe for member in members(zoo)}
    for unit in units:
        if unit.name not in recipes:
            raise DataError(f"{folder}: {unit.name} is no member of the zoo {zoo.name}; remove its summary")
    benign = [
        (unit.summary, bank_member(recipes[unit.name], unit.summary).model_copy(update={"name": unit.name}))
        for unit in units
        if unit.label == "benign"
    ]
    attacks = [unit for unit in units if unit.label == "malicious"]
    families = sorted({unit.origin.family for unit in attacks})
    fitted_on = (
        f"{len(attacks)} attacks of {len(families)} families: {', '.join(families)}" if attacks else ""
    )
    bank = fit_bank(benign, [unit.summary for unit in attacks], fitted_on)
    write_bank(bank, out)
    weights = bank.discriminant.fitted_on if bank.discriminant else "too few members to weigh"
    return {"bank": str(out), "members": len(bank.members), "fitted_on": weights}
