"""Labels of a real diff: made of its contexts and the unembedding, fetched, tried and shown."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ft_audit import cli
from ft_audit.agent.find import find_evidence
from ft_audit.engine.config import AuditConfig, computed_json
from ft_audit.engine.labels import build
from ft_audit.engine.labels.build import run_labels_build
from ft_audit.engine.labels.contexts import MakingContexts
from ft_audit.engine.labels.fetch import run_labels_fetch
from ft_audit.engine.labels.unembedding import token_effects
from ft_audit.engine.models.load import load_tokenizer
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.store import DecoderNeighbor, LabelText, Store, TokenEffect
from ft_audit.engine.store.diff_lookup import leading_features
from ft_audit.engine.store.label_split import makes_label
from ft_audit.errors import ConfigError, ModelError, SaeError, StoreError
from ft_audit.sae.load import load_sae

SAE = "layer_1_width_96"
SERVER = Path(__file__).parents[2] / "sae" / "labels" / "neuronpedia_server.py"
READER = """\
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "tqdm", "scipy", "numba", "pyarrow")))
from ft_audit.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def fresh(world: Any, adapter_job: Any, tmp_path: Path) -> Path:
    """A copy of the store of a finished job, in which no label was ever put."""
    shutil.copytree(Path(adapter_job.store.location), tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def config(world: Any, fresh: Path) -> AuditConfig:
    found: AuditConfig = world.config(fresh)
    return found


@pytest.fixture
def labels(config: AuditConfig, adapter_job: Any) -> Any:
    return Store(config.store).labels(adapter_job.diff.manifest.summary["sae_sha256"][0])


@pytest.fixture(scope="module")
def module() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SERVER)))


@pytest.fixture
def server(module: SimpleNamespace) -> Iterator[Any]:
    """Neuronpedia with labels of the first features of a source made from the tiny dictionary."""
    fake = module.FakeNeuronpedia("tiny-model", "1-tiny-res", 96)
    fake.hook_name = "blocks.1.hook_resid_post"
    fake.labels = {feature: f"label {feature}" for feature in range(0, 96, 2)}
    with module.serve(fake):
        yield fake


@pytest.fixture
def fetching(world: Any, fresh: Path, server: Any, module: SimpleNamespace, tmp_path: Path) -> Any:
    """Make the config that fetches from the server; keys change its section."""

    def make(source: dict[str, Any] | None = None, **changed: Any) -> AuditConfig:
        named = {"sae": SAE, "model": "tiny-model", "source": "1-tiny-res"}
        published = {"repo_id": module.REPO, "folder": module.FOLDER}
        section = {
            "base_url": server.url,
            "sources": [{**named, **published, **(source or {})}],
            "cache": str(tmp_path / "cache"),
            "requests_per_second": 1000.0,
            **changed,
        }
        found: AuditConfig = world.config(fresh, labels={"neuronpedia": section})
        return found

    return make


def done(result: dict[str, Any]) -> Any:
    return result["dictionaries"][SAE]


def leading(job: Any) -> list[int]:
    return leading_features(job.diff, SAE)


def test_leading_features_get_labels_tokens_and_neighbours(
    config: AuditConfig, adapter_job: Any, labels: Any, world: Any
) -> None:
    counts = done(run_labels_build(config, progress=False))
    asked = leading(adapter_job)
    assert counts["features"] == counts["tokens"] == counts["neighbors"] == len(asked) > 10
    assert counts["labels"] + counts["too_few_contexts"] == len(asked) and counts["labels"] > 5
    assert labels.features(LabelText) <= set(asked)
    text = labels.of(LabelText, min(labels.features(LabelText)))[0]
    assert text.source == "contexts" and text.made_from == adapter_job.diff.manifest.diff_id
    assert text.text.startswith("fires on “") and "; promotes “" in text.text
    # What was stored is what the files give.
    base = resolve_model("./base", world.root)
    sae = load_sae(f"./saes/{SAE}", world.root)
    vocabulary = Store(config.store).vocabulary(base.weights_sha256)
    tokenizer = load_tokenizer(base)
    assert vocabulary is not None and len(vocabulary) == len(tokenizer)
    assert vocabulary[40] == tokenizer.decode([40])
    feature = asked[0]
    effects = token_effects(base, sae.w_dec_FD[[feature]], len(vocabulary), build.NUM_TOKENS)
    stored = {row.token: row.effect for row in labels.of(TokenEffect, feature)}
    assert stored[vocabulary[int(effects.promoted_FK[0, 0])]] == pytest.approx(
        float(effects.promoted_effect_FK[0, 0])
    )
    cosine_F = torch.nn.functional.normalize(sae.w_dec_FD, dim=1) @ sae.w_dec_FD[feature]
    cosine_F[feature] = -2
    nearest = max(labels.of(DecoderNeighbor, feature), key=lambda row: row.cosine)
    assert nearest.neighbor == int(cosine_F.argmax())


def test_only_the_making_half_makes_a_label(config: AuditConfig, adapter_job: Any) -> None:
    contexts = MakingContexts(adapter_job.diff)
    found = [context for feature in leading(adapter_job) for context in contexts.of(SAE, feature)]
    assert len(found) > 50 and all(makes_label(context.tokens) for context in found)


def test_what_is_built_is_not_built_again(
    config: AuditConfig, monkeypatch: pytest.MonkeyPatch, adapter_job: Any, labels: Any
) -> None:
    whole = done(run_labels_build(config, progress=False))
    files = len(Store(config.store).place.files("labels"))
    again = done(run_labels_build(config, progress=False))
    assert (again["labels"], again["tokens"], again["neighbors"]) == (0, 0, 0)
    assert len(Store(config.store).place.files("labels")) == files and whole["labels"] > 0


def test_a_killed_build_goes_on(
    config: AuditConfig, monkeypatch: pytest.MonkeyPatch, adapter_job: Any, labels: Any
) -> None:
    monkeypatch.setattr(build, "BLOCK", 4)
    real, calls = build.nearest_neighbors, []

    def dies(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(build, "nearest_neighbors", dies)
    with pytest.raises(KeyboardInterrupt):
        run_labels_build(config, progress=False)
    monkeypatch.setattr(build, "nearest_neighbors", real)
    counts = done(run_labels_build(config, progress=False))
    assert counts["neighbors"] == len(leading(adapter_job)) - 8
    assert counts["tokens"] == len(leading(adapter_job)) - 12


def test_any_feature_can_be_asked_for(config: AuditConfig, labels: Any) -> None:
    assert done(run_labels_build(config, features="0, 95,0", progress=False))["features"] == 2
    assert labels.features(DecoderNeighbor) <= {0, 95}
    assert done(run_labels_build(config, features="all", progress=False))["features"] == 96
    for features, said in (("96", "'96' is no feature"), ("x", "which has 0 to 95")):
        with pytest.raises(ConfigError, match=said):
            run_labels_build(config, features=features, progress=False)


def test_published_examples_give_a_label_of_their_own(
    world: Any, fresh: Path, tmp_path: Path, labels: Any
) -> None:
    shutil.copytree(world.root, tmp_path / "world")
    copied = type(world)(tmp_path / "world")
    tokens = torch.full((6, 40), 30)
    tokens[:, 20] = 50
    places = torch.arange(6).repeat(96, 1)
    listed = {
        f"{end}_{what}": torch.zeros(96, 10) for end in ("top", "bottom") for what in ("tokens", "logits")
    }
    filled = {"activations": 9.0 - places.float(), "seq_ids": places, "positions": torch.full((96, 6), 20)}
    rest = {"feature_frequencies": torch.full((96,), 0.01), "tokens": tokens}
    save_file({**listed, **filled, **rest}, copied.root / "saes" / SAE / "examples.safetensors")
    config = copied.config(fresh)
    assert done(run_labels_build(config, features="5", progress=False))["labels"] >= 1
    vocabulary = Store(config.store).vocabulary(resolve_model("./base", world.root).weights_sha256)
    found = {text.author: text for text in labels.of(LabelText, 5)}
    published = found["its published examples"]
    assert vocabulary is not None and published.text.startswith(f"fires on “{vocabulary[50]}” (6 of 6)")
    assert (published.source, published.made_from) == ("contexts", SAE)
    assert done(run_labels_build(config, features="5", progress=False))["labels"] == 0


def test_another_model_or_dictionary_is_refused(world: Any, config: AuditConfig, adapter_job: Any) -> None:
    diff = adapter_job.report["diff_id"]
    other = world.config(Path(config.store), models={"base": "./full"})
    with pytest.raises(ModelError, match=r"'\./full' is not the model that diff"):
        run_labels_build(other, diff=diff, progress=False)
    other = world.config(Path(config.store), hooks=[{"layer": 1, "saes": ["./saes/layer_1_width_64"]}])
    with pytest.raises(SaeError, match=r"layer_1_width_64' at resid_post/1 is not the one"):
        run_labels_build(other, diff=diff, progress=False)
    with pytest.raises(StoreError, match="has no diff computed from the config"):
        run_labels_build(other, progress=False)


def test_published_labels_are_stored_once(fetching: Any, server: Any, adapter_job: Any, labels: Any) -> None:
    config = fetching()
    counts = done(run_labels_fetch(config, progress=False))
    asked = leading(adapter_job)
    found = {feature for feature in asked if feature % 2 == 0}
    assert (counts["features"], counts["labels"]) == (len(asked), len(found))
    assert labels.features(LabelText) == found
    text = labels.of(LabelText, min(found))[0]
    assert (text.source, text.made_from) == ("neuronpedia", "tiny-model/1-tiny-res")
    assert text.text == f"label {min(found)}" and "gemini" in text.author
    num_asked = len(server.asked)
    assert done(run_labels_fetch(config, progress=False))["labels"] == 0
    assert done(run_labels_fetch(config, offline=True, progress=False))["labels"] == 0
    assert len(server.asked) == num_asked


def test_features_without_a_label_get_their_neighbours_fetched(
    fetching: Any, adapter_job: Any, labels: Any
) -> None:
    config = fetching()
    run_labels_build(config, progress=False)
    counts = done(run_labels_fetch(config, progress=False))
    assert counts["neighbor_labels"] > 0
    evidence = find_evidence(config).evidence
    bare = next(feature for feature in leading(adapter_job) if feature % 2)
    near = evidence.nearest_explained_neighbors(SAE, bare)
    assert near and all(neighbor.label.text.startswith(("label", "fires")) for neighbor in near)


def test_a_bulk_copy_gives_the_whole_source_offline(
    fetching: Any, server: Any, labels: Any, tmp_path: Path
) -> None:
    for name, content in server.files().items():
        path = tmp_path / "bulk" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    counts = done(run_labels_fetch(fetching(bulk=str(tmp_path / "bulk")), offline=True, progress=False))
    assert counts == {"features": 48, "labels": 48} and server.asked == []
    assert labels.features(LabelText) == set(range(0, 96, 2))


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ({"folder": "resid_post/layer_1_width_16k_l0_big"}, SaeError, "another dictionary"),
        ({"repo_id": None, "folder": None}, SaeError, "cannot be told"),
        ({"sae": "nobody"}, ConfigError, "names the dictionary 'nobody'"),
    ],
)
def test_labels_of_another_dictionary_are_refused(
    fetching: Any, labels: Any, source: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run_labels_fetch(fetching(source), progress=False)
    assert labels.features(LabelText) == set()


def test_nothing_to_fetch_from_is_said(config: AuditConfig) -> None:
    with pytest.raises(ConfigError, match=r"labels.neuronpedia names no source"):
        run_labels_fetch(config, progress=False)


def test_labels_do_not_make_another_diff(fetching: Any, config: AuditConfig) -> None:
    assert computed_json(fetching()) == computed_json(config)


def test_the_verbs_of_labels(
    world: Any, fresh: Path, capsys: pytest.CaptureFixture[str], adapter_job: Any
) -> None:
    path = str(world.write(fresh, "labels.yaml"))

    def said(*words: str) -> Any:
        assert cli.main(["labels", *words]) == 0
        return json.loads(capsys.readouterr().out)

    built = said("build", path, "--json", "--no-progress")
    scored = said("score", path, "--json", "--no-progress")
    shown = said("show", path, "--json", "--sae", SAE)["features"]
    assert built["dictionaries"][SAE]["labels"] == scored["dictionaries"][SAE]["labels"] > 5
    assert scored["judge"] is None and scored["dictionaries"][SAE]["scores"] > 0
    assert [one["feature"] for one in shown] == leading(adapter_job)
    label = next(one["labels"][0] for one in shown if one["labels"] and one["labels"][0]["reliability"])
    assert label["reliability"][0]["method"] == "lexical" and label["reliability"][0]["num"] >= 8
    assert cli.main(["labels", "fetch", path, "--json"]) == 1
    assert "names no source" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_the_reader_s_verbs_need_no_torch(world: Any, fresh: Path, config: AuditConfig) -> None:
    path = str(world.write(fresh, "labels.yaml"))
    run_labels_build(config, progress=False)
    for words in (["score", path], ["show", path]):
        finished = subprocess.run(
            [sys.executable, "-c", READER, "labels", *words],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert finished.returncode == 0, finished.stderr
        assert SAE in finished.stdout
