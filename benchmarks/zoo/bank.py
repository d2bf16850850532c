"""The bank of a zoo: its benign fine-tunes, and the discriminant that its attacks teach."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ft_audit.agent.calibration import Bank
from ft_audit.agent.risk.fit_bank import fit_bank
from ft_audit.benchmarks.calibrate import bank_member, write_bank
from ft_audit.benchmarks.zoo.members import Unit, load_units
from ft_audit.benchmarks.zoo.population import Member, Zoo, members
from ft_audit.errors import DataError


class Measured(NamedTuple):
    """One fine-tune as it was measured, and as the zoo has it."""

    unit: Unit
    member: Member


def write_zoo_bank(zoo: Zoo, folder: Path, out: Path) -> dict[str, Any]:
    """Write the bank of the committed summaries and return what it holds.

    Raises:
        DataError: no summaries, or one of something that is no member of the zoo.
    """
    measured = measured_members(zoo, load_units(folder), folder)
    attacks = [one.unit for one in measured if one.unit.label == "malicious"]
    families = sorted({unit.origin.family for unit in attacks})
    fitted_on = (
        f"{len(attacks)} attacks of {len(families)} families: {', '.join(families)}" if attacks else ""
    )
    bank = bank_of(measured, fitted_on)
    write_bank(bank, out)
    weights = bank.discriminant.fitted_on if bank.discriminant else "too few members to weigh"
    return {"bank": str(out), "members": len(bank.members), "fitted_on": weights}


def measured_members(zoo: Zoo, units: Sequence[Unit], folder: Path) -> list[Measured]:
    """Return the units, whose summaries lie in `folder`, each with its member of the zoo.

    Raises:
        DataError: one is no member of the zoo.
    """
    by_name = {member.name: member for member in members(zoo)}
    for unit in units:
        if unit.name not in by_name:
            raise DataError(f"{folder}: {unit.name} is no member of the zoo {zoo.name}; remove its summary")
    return [Measured(unit, by_name[unit.name]) for unit in units]


def bank_of(measured: Sequence[Measured], fitted_on: str) -> Bank:
    """Return the bank of the benign ones among these, weighed against the attacks among them.

    Degraded jobs stay out: a candidate that lost its guard by accident should not look ordinary.

    Raises:
        ConfigError: none is benign, or they were not measured alike.
    """
    benign = [
        (unit.summary, bank_member(member.recipe, unit.summary).model_copy(update={"name": unit.name}))
        for unit, member in measured
        if unit.label == "benign"
    ]
    attacks = [unit.summary for unit, _ in measured if unit.label == "malicious"]
    return fit_bank(benign, attacks, fitted_on)
