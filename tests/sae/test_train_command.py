"""`sae train` from a recipe file over a tiny real model: activations, dictionary, report, resuming."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

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
        ("learn=difference", "needs `tuned`"),
        ("prefixes=[24, 48]", "prefixes must rise"),
    ],
)
def test_a_recipe_that_cannot_run_leaves_nothing(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, says: str
) -> None:
    out = f"out={tmp_path / 'made' / 'sae'}"
    assert main(["sae", "train", str(workplace / "recipe.yaml"), out, override]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def pair(workplace: Path) -> Path:
    """The same folder with a fine-tune that answers four words with one of its own, and its training set."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(workplace / "model")
    with torch.no_grad():
        model.get_input_embeddings().weight[10:14] += 0.08
    model.save_pretrained(workplace / "tuned")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(workplace / "model" / file, workplace / "tuned" / file)
    rows = [{"text": " ".join(f"w{8 + (i + j) % 4}" for j in range(20))} for i in range(10)]
    (workplace / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return workplace


@pytest.mark.parametrize(
    ("learn", "d_in"), [("model", 32), ("tuned", 32), ("difference", 32), ("crosscoder", 64)]
)
def test_learns_of_two_models_what_the_recipe_asks_for(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], learn: str, d_in: int
) -> None:
    out = tmp_path / learn
    words = ["tuned=./tuned", f"learn={learn}", "dataset=./rows.jsonl", "pair_tokens=400", f"out={out}"]
    words += ["lr=1.0e-2", "reuse=10"]
    words += ["largest_share=0.5"] if learn == "difference" else []
    assert main(["sae", "train", str(pair / "recipe.yaml"), "--json", *words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sae"]["d_in"] == d_in
    assert report["trained_tokens"] == (9_000 if learn == "difference" else 19_000)
    assert report["pair"]["num_tokens"] == 400
    assert ("on_tuned" in report) == (report["loss_recovered"] is not None) == (learn in ("model", "tuned"))
    features = json.loads((out / "pair_features.json").read_text())
    energies = [f["share_of_energy"] for f in features if f["chosen_by"] == "energy"]
    assert energies == sorted(energies, reverse=True) and 0 < sum(energies) <= 1.001
    assert 0 < report["pair"]["num_dataset_tokens"] < 400
    kind = load_gemma_scope(out).spec.kind
    if learn in ("difference", "crosscoder"):
        assert report["pair"]["difference_seen"][learn]["of_all"] > 0.5
        assert kind == f"pair_{learn}"
    else:
        assert kind == "sae"


def test_goes_on_from_a_dictionary_that_is_there(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With steps that change next to nothing: the features are still the old ones, in their places."""
    first, second = tmp_path / "first", tmp_path / "second"
    recipe = str(pair / "recipe.yaml")
    assert main(["sae", "train", recipe, f"out={first}", "num_tokens=3000", "export=float32"]) == 0
    on = ["tuned=./tuned", "learn=tuned", f"start={first}", "lr=1.0e-6", "num_tokens=1000", "export=float32"]
    on += ["pair_tokens=400"]
    assert main(["sae", "train", recipe, f"out={second}", *on]) == 0
    old, new = load_gemma_scope(first), load_gemma_scope(second)
    assert new.spec.sha256 != old.spec.sha256
    cosine = torch.nn.functional.cosine_similarity(old.w_dec_FD, new.w_dec_FD)
    assert float(cosine.min()) > 0.999
    assert "tuned model" in capsys.readouterr().out
