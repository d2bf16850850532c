"""What the verbs that write labels begin with: a config's diff, its dictionaries, the features asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ft_audit.engine.config import AuditConfig, HookConfig, SaeConfig, computed_json
from ft_audit.engine.store import DiffReader, Store
from ft_audit.engine.store.diff_lookup import find_diff, leading_features
from ft_audit.errors import ConfigError, SaeError
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.load import load_sae

ALL = "all"


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A config, the diff computed from it, and what was asked for."""

    config: AuditConfig
    store: Store
    diff: DiffReader
    asked: str | None
    """`all`, feature numbers with commas between them, or None for those that lead in the diff."""

    @property
    def diff_id(self) -> str:
        """The diff's name."""
        return self.diff.manifest.diff_id

    @property
    def base_sha256(self) -> str:
        """The hash of the base that the diff was computed from."""
        return str(self.diff.manifest.summary["models"]["base"]["sha256"])

    def dictionaries(self, names: Sequence[str] | None = None) -> Iterator[tuple[SaeConfig, JumpReluSae]]:
        """Yield each of the config's dictionaries, loaded; only those of these names, where some are given.

        Raises SaeError where one is not the one that the diff was computed with.
        """
        known = _sha256_by_name(self.diff.manifest.summary)
        for hook in self.config.hooks:
            for reference in hook.saes:
                sae = self._load(hook, reference, known)
                if names is None or sae.spec.name in names:
                    yield reference, sae

    def _load(self, hook: HookConfig, reference: SaeConfig, known: dict[str, str]) -> JumpReluSae:
        sae = load_sae(reference.reference, self.config.base_dir)
        if known.get(sae.spec.name) != sae.spec.sha256:
            raise SaeError(
                f"hooks: dictionary {reference.reference!r} at {hook.name} is not the one that diff "
                f"{self.diff_id} was computed with: give that one, or run `ft-audit precompute` again"
            )
        return sae

    def features(self, sae: str, width: int) -> list[int]:
        """Return the features asked for; ConfigError for one that the dictionary does not have."""
        if self.asked is None:
            return leading_features(self.diff, sae)
        if self.asked == ALL:
            return list(range(width))
        texts = [text.strip() for text in self.asked.split(",")]
        for text in texts:
            if not text.isdecimal() or int(text) >= width:
                raise ConfigError(
                    f"--features: {text!r} is no feature of {sae!r}, which has 0 to {width - 1}: give "
                    "numbers with commas between them, or all"
                )
        return list(dict.fromkeys(int(text) for text in texts))


def open_job(config: AuditConfig, diff: str | None, asked: str | None) -> LabelJob:
    """Return the job over the config's newest diff, or the one named; StoreError when there is none."""
    store = Store(config.store)
    return LabelJob(config, store, find_diff(store, config.name, computed_json(config), diff).reader, asked)


def _sha256_by_name(summary: dict[str, Any]) -> dict[str, str]:
    names = [name for hook in summary["hooks"] for name in hook["saes"]]
    return dict(zip(names, summary["sae_sha256"], strict=True))
