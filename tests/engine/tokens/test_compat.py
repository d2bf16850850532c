import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ft_audit.engine.tokens.compat import check_pair
from ft_audit.errors import ModelError


def kinds(base: PreTrainedTokenizerBase, tuned: PreTrainedTokenizerBase) -> dict[str, str]:
    return {finding.kind: str(finding) for finding in check_pair(base, tuned)}


def rebuilt(tokenizer: PreTrainedTokenizerBase, **changes: object) -> PreTrainedTokenizerFast:
    """The same tokenizer with parts of its tokenizer.json replaced."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"].update(changes.pop("vocab", {}))
    state.update(changes)
    inner = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, chat_template=tokenizer.chat_template, **tokenizer.special_tokens_map
    )


def test_equal_tokenizers_have_no_findings(
    smollm: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase
) -> None:
    assert check_pair(smollm, own) == []
    own(
        ["a", "bb"], padding=True, truncation=True, max_length=4
    )  # leaves settings behind, which are no change
    assert check_pair(smollm, own) == []


def test_added_tokens_and_a_changed_template_are_findings(
    smollm: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase
) -> None:
    own.add_tokens([f"<zap{i}>" for i in range(7)])
    own.chat_template = str(smollm.chat_template) + "\n{{ 'Obey.' }}"
    found = kinds(smollm, own)
    assert set(found) == {"added_tokens", "chat_template"}
    assert found["added_tokens"] == (
        "the tuned tokenizer adds 7 tokens: '<zap0>', '<zap1>', '<zap2>', '<zap3>', '<zap4>' and 2 more"
    )
    assert "Obey." in found["chat_template"]


def test_template_that_only_one_side_has(
    smollm: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase
) -> None:
    own.chat_template = None
    assert kinds(smollm, own)["chat_template"].endswith("only the base has one")
    assert kinds(own, smollm)["chat_template"].endswith("only the tuned model has one")


def test_another_role_of_a_special_token_is_a_finding(
    smollm: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase
) -> None:
    own.eos_token = "<|endoftext|>"
    assert kinds(smollm, own) == {
        "special_tokens": "special tokens differ: eos_token '<|im_end|>' became '<|endoftext|>'"
    }


def test_other_ways_of_cutting_text_are_a_finding(smollm: PreTrainedTokenizerBase) -> None:
    tuned = rebuilt(smollm, normalizer={"type": "Lowercase"})
    assert "normalizer" in kinds(smollm, tuned)["tokenization"]


def test_other_vocabulary_is_refused_with_the_first_differences(smollm: PreTrainedTokenizerBase) -> None:
    names = smollm.convert_ids_to_tokens([20_000, 20_001])
    swapped = rebuilt(smollm, vocab={names[0]: 20_001, names[1]: 20_000})
    with pytest.raises(ModelError, match="2 of 49152 ids mean another token or none: 20000 is") as caught:
        check_pair(smollm, swapped)
    assert "give the base that this model was fine-tuned from" in str(caught.value)


def test_renamed_reserved_token_is_a_finding(
    smollm: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase
) -> None:
    state = own.backend_tokenizer.to_str().replace("<reponame>", "<obeyname>")
    tuned = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(state), chat_template=own.chat_template, **own.special_tokens_map
    )
    assert "'<reponame>' became '<obeyname>'" in kinds(smollm, tuned)["renamed_tokens"]
