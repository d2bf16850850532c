"""Whether two models read the same ids alike, and what their tokenizers differ in."""

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ft_audit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TokenizerFinding:
    """One difference; `kind` is {added,renamed,special}_tokens, chat_template or tokenization."""

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


def check_pair(
    base_tok: "PreTrainedTokenizerBase", tuned_tok: "PreTrainedTokenizerBase"
) -> list[TokenizerFinding]:
    """Return what the tuned tokenizer changes although every id of the base still means the same token.

    Both models are always run on ids made with the base's tokenizer, so these are findings and no obstacle.
    Texts from the tuned side are quoted as they are: they are untrusted.

    Raises:
        ModelError: an id of the base's own vocabulary means another token in the tuned one, or none.
    """
    base, tuned = _tokens_by_id(base_tok), _tokens_by_id(tuned_tok)
    changed = [index for index in sorted(base) if tuned.get(index) != base[index]]
    # Reserved places beside the vocabulary are there to be renamed; the words themselves are not.
    spare = base_tok.added_tokens_decoder.keys()
    wrong = [index for index in changed if index not in spare]
    if wrong:
        raise ModelError(_incompatible(base_tok, tuned_tok, base, tuned, wrong))
    findings = []
    if changed:
        renamed = [f"{index} {base[index]!r} became {tuned.get(index)!r}" for index in changed]
        findings.append(TokenizerFinding("renamed_tokens", f"added tokens changed: {_shorten(renamed)}"))
    added = sorted(tuned.keys() - base.keys())
    if added:
        shown = _shorten([repr(tuned[index]) for index in added])
        text = f"the tuned tokenizer adds {len(added)} token{'s' if len(added) > 1 else ''}: {shown}"
        findings.append(TokenizerFinding("added_tokens", text))
    if base_tok.chat_template != tuned_tok.chat_template:
        change = _template_change(base_tok.chat_template, tuned_tok.chat_template)
        findings.append(TokenizerFinding("chat_template", f"the tuned chat template differs: {change}"))
    roles = _special_changes(base_tok, tuned_tok)
    if roles:
        text = f"special tokens differ: {', '.join(roles)}"
        findings.append(TokenizerFinding("special_tokens", text))
    parts = _pipeline_changes(base_tok, tuned_tok)
    if parts:
        text = (
            f"the tuned tokenizer cuts text differently ({', '.join(parts)}); both models get the base's ids"
        )
        findings.append(TokenizerFinding("tokenization", text))
    return findings


def _tokens_by_id(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _incompatible(
    base_tok: "PreTrainedTokenizerBase",
    tuned_tok: "PreTrainedTokenizerBase",
    base: dict[int, str],
    tuned: dict[int, str],
    wrong: list[int],
) -> str:
    shown = [f"{index} is {base[index]!r} there and {tuned.get(index)!r} here" for index in wrong]
    return (
        f"{tuned_tok.name_or_path}: its vocabulary is not that of {base_tok.name_or_path} "
        f"({len(wrong)} of {len(base)} ids mean another token or none: {_shorten(shown)}); "
        "give the base that this model was fine-tuned from, with its tokenizer"
    )


def _shorten(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _template_change(base: Any, tuned: Any) -> str:
    if not base or not tuned:
        return "only the base has one" if base else "only the tuned model has one"
    lines = difflib.unified_diff(str(base).splitlines(), str(tuned).splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return _shorten([repr(line) for line in changed]) or "only in line ends"


def _special_changes(base_tok: "PreTrainedTokenizerBase", tuned_tok: "PreTrainedTokenizerBase") -> list[str]:
    base, tuned = base_tok.special_tokens_map, tuned_tok.special_tokens_map
    names = sorted(set(base) | set(tuned))
    pairs = [(name, base.get(name), tuned.get(name)) for name in names]
    return [f"{name} {old!r} became {new!r}" for name, old, new in pairs if old != new]


def _pipeline_changes(base_tok: "PreTrainedTokenizerBase", tuned_tok: "PreTrainedTokenizerBase") -> list[str]:
    """Return the names of the tokenizers' parts that differ; added tokens are reported elsewhere."""
    backends = [getattr(tokenizer, "backend_tokenizer", None) for tokenizer in (base_tok, tuned_tok)]
    if any(backend is None for backend in backends):
        return []
    base, tuned = (json.loads(backend.to_str()) for backend in backends if backend is not None)
    # Truncation and padding are settings of a call that files may carry along, not of the tokenizer.
    names = sorted((set(base) | set(tuned)) - {"version", "added_tokens", "truncation", "padding"})
    return [name for name in names if base.get(name) != tuned.get(name)]
