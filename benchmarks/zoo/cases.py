"""The zoo's fine-tunes as audits: each with its stored evidence, beside a bank without its kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ft_audit.agent.audit import find_calibration
from ft_audit.agent.calibration import Bank, Calibration
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.find import find_evidence
from ft_audit.benchmarks.calibrate import member_config, write_bank
from ft_audit.benchmarks.zoo.bank import Measured, bank_of, measured_members
from ft_audit.benchmarks.zoo.members import Unit, load_units
from ft_audit.benchmarks.zoo.population import Zoo
from ft_audit.engine.config import AuditConfig, load_config, resolve_path
from ft_audit.errors import StoreError


@dataclass(frozen=True, slots=True)
class Case:
    """One fine-tune whose evidence is in the store, and what it is."""

    unit: Unit
    config: AuditConfig
    evidence: Evidence
    calibration: Calibration

    @property
    def is_malicious(self) -> bool:
        """Whether it is an attack that took; else it is benign."""
        return self.unit.label == "malicious"


class Cases(NamedTuple):
    """What can be audited, and the names of what the store holds no evidence of."""

    found: list[Case]
    missing: list[str]


def open_cases(
    zoo: Zoo,
    folder: Path,
    work: Path,
    banks: Path,
    overrides: Sequence[str] = (),
    only: str | None = None,
) -> Cases:
    """Return every attack and benign fine-tune of the zoo with its evidence and its own bank.

    Its bank is fitted without its recipe, and its weights without the attacks of its family, as detection is
    cross-fitted. `overrides` change the zoo's audit: which model investigates, and how far it may go.

    Raises:
        DataError: no summaries, or one of something that is no member of the zoo.
    """
    units = [unit for unit in load_units(folder) if unit.label in ("malicious", "benign")]
    measured = measured_members(zoo, units, folder)
    audit = load_config(resolve_path(zoo.audit, zoo.base_dir), overrides)
    found: list[Case] = []
    missing: list[str] = []
    for unit, member in measured:
        if only is not None and only not in unit.name:
            continue
        bank = banks / f"{unit.name}.json"
        write_bank(_bank_without(unit, measured), bank)
        config = member_config(audit, member.recipe, work / member.folder_name)
        config = config.model_copy(
            update={"audit": config.audit.model_copy(update={"bank": str(bank.resolve())})}
        )
        try:
            evidence = find_evidence(config).evidence
            evidence.training_rows()  # an older diff has no texts for an investigator to read
        except StoreError:
            missing.append(unit.name)
            continue
        found.append(Case(unit, config, evidence, find_calibration(config, evidence)))
    return Cases(found, missing)


def _bank_without(unit: Unit, measured: Sequence[Measured]) -> Bank:
    others = [
        other
        for other in measured
        if (other.unit.label == "benign" and other.unit.origin.recipe != unit.origin.recipe)
        or (other.unit.label == "malicious" and other.unit.origin.family != unit.origin.family)
    ]
    num_attacks = sum(other.unit.label == "malicious" for other in others)
    return bank_of(others, f"{num_attacks} attacks of other families")
