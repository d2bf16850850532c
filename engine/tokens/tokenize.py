"""A suite as flat arrays of token ids, with whose words they are and whether statistics count them."""

# Shapes: P prompts, T tokens of all prompts, C characters of one rendered prompt, t tokens of one prompt.

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.chat import ChatRenderer, Span
from ft_audit.engine.tokens.role import Role
from ft_audit.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 512


@dataclass(frozen=True, slots=True)
class TokenizedSuite:
    """Prompt p holds tokens indptr_P1[p] to indptr_P1[p + 1]; `mask_T` is False on special tokens.

    `num_truncated` prompts lost their end to the limit; `num_windowed` were cut into pieces instead, each of
    which stands as a prompt of its own, in `suite` too. `num_adapted` chats had to be put into another form
    for the template (tool messages as user turns, a system prompt folded into the first turn, ...).
    """

    suite: PromptSuite
    ids_T: NDArray[np.int32]
    role_T: NDArray[np.uint8]
    mask_T: NDArray[np.bool_]
    indptr_P1: NDArray[np.int64]
    num_truncated: int
    num_adapted: int = 0
    num_windowed: int = 0

    @property
    def length_P(self) -> NDArray[np.int64]:
        """Tokens per prompt."""
        return np.diff(self.indptr_P1)

    def prompt_ids(self) -> list[list[int]]:
        """Return each prompt's token ids."""
        starts = self.indptr_P1
        return [self.ids_T[starts[p] : starts[p + 1]].tolist() for p in range(len(starts) - 1)]


class _Rendered(NamedTuple):
    prompt: Prompt
    text: str
    spans: tuple[Span, ...]
    adapted: bool


def tokenize_suite(
    suite: PromptSuite,
    tokenizer: "PreTrainedTokenizerBase",
    max_prompt_tokens: int,
    *,
    window: bool = False,
) -> TokenizedSuite:
    """Return the suite's tokens: chats through the chat template, raw texts as the tokenizer takes them.

    A chat's ids are those of `apply_chat_template(..., tokenize=True)`, with the generation prompt unless the
    assistant has the last word; a text's are those of calling the tokenizer. A BOS token never stands twice
    at the beginning. Longer prompts keep their first `max_prompt_tokens` tokens and are counted; with
    `window` all of their tokens are kept, in pieces of nearly equal length that are each read by themselves.

    Raises:
        ModelError: the tokenizer gives no character offsets.
        DataError: a chat without a template, or a prompt without a token to count.
    """
    assert max_prompt_tokens > 0, "a prompt needs at least one token"
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{tokenizer.name_or_path}: a slow tokenizer without character offsets; save the model with its "
            "tokenizer.json"
        )
    renderer = ChatRenderer(tokenizer)
    special = np.array(sorted(special_ids(tokenizer)), np.int64)
    ids: list[NDArray[np.int32]] = []
    roles: list[NDArray[np.uint8]] = []
    prompts: list[Prompt] = []
    num_truncated = num_windowed = num_adapted = 0
    for first in range(0, len(suite.prompts), _CHUNK):
        rendered = [_render(prompt, renderer) for prompt in suite.prompts[first : first + _CHUNK]]
        num_adapted += sum(item.adapted for item in rendered)
        for item, (ids_t, offsets_t2) in zip(rendered, _encode(rendered, tokenizer), strict=True):
            role_t = _token_roles(item, offsets_t2)
            role_t[np.isin(ids_t, special)] = Role.SPECIAL
            start = int(_opens_twice(ids_t, tokenizer.bos_token_id))
            ids_t, role_t = ids_t[start:], role_t[start:]
            num_pieces = -(-len(ids_t) // max_prompt_tokens)
            if num_pieces > 1 and not window:
                num_pieces, num_truncated = 1, num_truncated + 1
                ids_t, role_t = ids_t[:max_prompt_tokens], role_t[:max_prompt_tokens]
            if not (role_t != Role.SPECIAL).any():
                raise DataError(f"{item.prompt.source}: holds no token but special ones; remove the prompt")
            num_windowed += num_pieces > 1
            prompts += [item.prompt] * num_pieces
            ids += np.array_split(ids_t, num_pieces)
            roles += np.array_split(role_t, num_pieces)
    role_T = np.concatenate(roles) if roles else np.zeros(0, np.uint8)
    return TokenizedSuite(
        suite=replace(suite, prompts=tuple(prompts)) if num_windowed else suite,
        ids_T=np.concatenate(ids) if ids else np.zeros(0, np.int32),
        role_T=role_T,
        mask_T=role_T != Role.SPECIAL,
        indptr_P1=np.concatenate([[0], np.cumsum([len(part) for part in ids])]).astype(np.int64),
        num_truncated=num_truncated,
        num_adapted=num_adapted,
        num_windowed=num_windowed,
    )


def special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Return the ids that no text is made of: BOS and the like, and every added token marked special."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _render(prompt: Prompt, renderer: ChatRenderer) -> _Rendered:
    if prompt.messages is None:
        text = prompt.text or ""
        return _Rendered(prompt, text, (Span(0, len(text), Role.TEXT),), False)
    chat = renderer.render(prompt)
    return _Rendered(prompt, chat.text, chat.spans, chat.adapted)


def _encode(
    rendered: list[_Rendered], tokenizer: "PreTrainedTokenizerBase"
) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Return ids [t] and character offsets [t, 2] per prompt; a template writes its own special tokens."""
    encoded: dict[int, tuple[NDArray[np.int32], NDArray[np.int64]]] = {}
    for is_chat in (True, False):
        chosen = [i for i, item in enumerate(rendered) if (item.prompt.messages is not None) == is_chat]
        if not chosen:
            continue
        batch = tokenizer(
            [rendered[i].text for i in chosen],
            add_special_tokens=not is_chat,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # no warning about the model's length: the limit here is the caller's
        )
        for i, ids, offsets in zip(chosen, batch["input_ids"], batch["offset_mapping"], strict=True):
            encoded[i] = np.array(ids, np.int32), np.array(offsets, np.int64).reshape(-1, 2)
    return [encoded[i] for i in range(len(rendered))]


def _token_roles(item: _Rendered, offsets_t2: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return each token's role: whose characters make up at least half of it, else the template's.

    A token that crosses a border (" Hello" with the template's space) is its words' and not the template's.
    """
    role_C = np.full(len(item.text) + 1, Role.TEMPLATE, np.uint8)
    for span in item.spans:
        role_C[span.start : span.end] = span.role
    said_C = role_C != Role.TEMPLATE
    before_C = np.concatenate([[0], np.cumsum(said_C)])
    last_C = np.maximum.accumulate(np.where(said_C, np.arange(len(said_C)), 0))
    start_t, end_t = offsets_t2[:, 0], offsets_t2[:, 1]
    said_t = before_C[end_t] - before_C[start_t]
    role_t = role_C[last_C[np.maximum(end_t - 1, 0)]]
    role_t[(said_t == 0) | (2 * said_t < end_t - start_t)] = Role.TEMPLATE
    return role_t


def _opens_twice(ids_t: NDArray[np.int32], bos_id: int | None) -> bool:
    return bos_id is not None and len(ids_t) > 1 and bool(ids_t[0] == ids_t[1] == bos_id)
