"""`sae train` from a recipe file over a tiny real model: activations, dictionary, report, resuming."""

import json
import random
from pathlib import Path

import pytest

from ft_audit.cli import main
from ft_audit.sae.formats.gemma_scope import load_gemma_scope

WORDS = [f"w{i}" for i in range(120)]
RECIPE = """\
model: ./model
layer: 1
suites: [./text.yaml]
num_tokens: 2000
width: 48
k: 4
batch: 100
buffer_tokens: 400
loss_recovered_tokens: 300
device: cpu
model_dtype: float32
compute: float32
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama, its tokenizer, 60 texts and a recipe."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("sae_train")
    vocabulary = {word: i for i, word in enumerate(["<s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>", pad_token="<s>"
    ).save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    pick = random.Random(0)
    texts = [" ".join(pick.choices(WORDS, k=60)) for _ in range(60)]
    suite = {"name": "text", "prompts": [{"id": f"t{i}", "text": text} for i, text in enumerate(texts)]}
    (folder / "text.yaml").write_text(json.dumps(suite))
    (folder / "recipe.yaml").write_text(RECIPE + f"out: {folder / 'saes' / 'tiny'}\n")
    return folder


def test_trains_reports_and_does_nothing_the_second_time(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sae", "train", str(workplace / "recipe.yaml"), "--json"]
    assert main(words) == 0
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert "tokens/s" in told.err
    assert "min left" in told.err
    assert report["trained_tokens"] == 1900
    assert report["held_out"]["num_tokens"] == 100
    recovered = report["loss_recovered"]
    assert recovered["loss_zero"] != recovered["loss_clean"]
    out = workplace / "saes" / "tiny"
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "params.safetensors", "report.json"]
    sae = load_gemma_scope(out)
    assert (sae.spec.d_in, sae.spec.width, sae.spec.layer) == (32, 48, 1)
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert main(["sae", "info", str(out)]) == 0
    assert "held-out tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("layer=7", "layer"),
        ("num_tokens=900000", "lower num_tokens"),
        ("suites=[./none.yaml]", "none.yaml"),
        ("widht=3", "did you mean 'width'"),
    ],
)
def test_a_recipe_that_cannot_run_leaves_nothing(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, says: str
) -> None:
    out = f"out={tmp_path / 'made' / 'sae'}"
    assert main(["sae", "train", str(workplace / "recipe.yaml"), out, override]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
