"""The examples that Gemma Scope 2 publishes beside a dictionary, read slice by slice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.examples import EXAMPLES_FILE, Context, TokenLogit, open_examples

NUM_FEATURES, NUM_PLACES, NUM_SEQUENCES, LENGTH = 4, 6, 5, 16


def published() -> dict[str, Tensor]:
    """Feature 1 fires in sequences 3, 3, 0 and nowhere else; the other features at random places."""
    generator = torch.Generator().manual_seed(0)
    places = (NUM_FEATURES, NUM_PLACES)
    made = {
        "top_tokens": torch.arange(NUM_FEATURES * 3, dtype=torch.int32).view(NUM_FEATURES, 3),
        "top_logits": torch.rand(NUM_FEATURES, 3, generator=generator),
        "bottom_tokens": torch.arange(100, 100 + NUM_FEATURES * 3, dtype=torch.int32).view(NUM_FEATURES, 3),
        "bottom_logits": -torch.rand(NUM_FEATURES, 3, generator=generator),
        "activations": torch.rand(places, generator=generator),
        "seq_ids": torch.randint(NUM_SEQUENCES, places, generator=generator, dtype=torch.int32),
        "positions": torch.randint(LENGTH, places, generator=generator, dtype=torch.int32),
        "feature_frequencies": torch.tensor([0.5, 0.25, 0.0, 1.0]),
        "tokens": torch.arange(NUM_SEQUENCES * LENGTH, dtype=torch.int32).view(NUM_SEQUENCES, LENGTH),
    }
    made["activations"][1] = torch.tensor([7.0, 0.0, 9.0, 8.0, 0.0, 0.0])
    made["seq_ids"][1] = torch.tensor([3, -1, 0, 3, 0, 0], dtype=torch.int32)
    made["positions"][1] = torch.tensor([2, -1, 15, 5, 0, 0], dtype=torch.int32)
    return made


def publish(folder: Path, **changed: Tensor | None) -> Path:
    kept = {name: tensor for name, tensor in (published() | changed).items() if tensor is not None}
    save_file(kept, folder / EXAMPLES_FILE)
    return folder


def test_a_feature_tells_where_it_fires_and_what_it_promotes(tmp_path: Path) -> None:
    with open_examples(publish(tmp_path)) as examples:
        told = examples.feature(1, before=3, after=2)
    assert told.firing_rate == 0.25
    first = published()
    assert told.promoted[2] == TokenLogit(5, float(first["top_logits"][1, 2]))
    assert told.suppressed[0] == TokenLogit(103, float(first["bottom_logits"][1, 0]))
    # Strongest first, one a sequence, cut at the sequence's ends; what is not filled is left out.
    assert told.contexts == (
        Context(0, 15, (12, 13, 14, 15), 3, 9.0),
        Context(3, 5, (50, 51, 52, 53, 54, 55), 3, 8.0),
    )
    for context in told.contexts:
        assert context.ids[context.peak] == context.sequence * LENGTH + context.position


def test_no_more_contexts_than_asked_for(tmp_path: Path) -> None:
    with open_examples(publish(tmp_path)) as examples:
        assert [len(examples.feature(1, num_contexts=n).contexts) for n in (0, 1, 5)] == [0, 1, 2]


def test_firing_rates_of_all_features(tmp_path: Path) -> None:
    with open_examples(publish(tmp_path)) as examples:
        assert np.array_equal(examples.firing_rates(), np.float32([0.5, 0.25, 0.0, 1.0]))
        assert (examples.num_features, examples.num_sequences) == (NUM_FEATURES, NUM_SEQUENCES)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_any_precision_of_activations_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    with open_examples(publish(tmp_path, activations=published()["activations"].to(dtype))) as examples:
        assert [context.activation for context in examples.feature(1).contexts] == [9.0, 8.0]


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    with (
        pytest.raises(SaeError, match=r"holds no examples\.safetensors.*sae info --examples"),
        open_examples(tmp_path),
    ):
        pass
    publish(tmp_path, positions=None, top_logits=None)
    with pytest.raises(SaeError, match="misses top_logits, positions"), open_examples(tmp_path):
        pass
    publish(tmp_path, seq_ids=torch.zeros(3, NUM_PLACES, dtype=torch.int32))
    with (
        pytest.raises(SaeError, match=r"seq_ids has shape \(3, 6\), expected a row for each of 4"),
        open_examples(tmp_path),
    ):
        pass
    with (
        open_examples(publish(tmp_path)) as examples,
        pytest.raises(SaeError, match="features 0 to 3, not 4"),
    ):
        examples.feature(4)
    whole = (tmp_path / EXAMPLES_FILE).read_bytes()
    (tmp_path / EXAMPLES_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SaeError, match="not a readable safetensors file"), open_examples(tmp_path):
        pass
