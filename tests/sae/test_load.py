"""References to dictionaries: local folders, shipped data and the hub."""

import re
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
import yaml

import ft_audit.configs
import ft_audit.sae.releases
from ft_audit.errors import MissingExtraError, SaeError
from ft_audit.sae.formats.gemma_scope import save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.load import find_sae, load_sae
from ft_audit.sae.releases import read_list

RandomSae = Callable[..., JumpReluSae]
FOLDER = "resid_post/layer_3_width_16k_l0_medium"


def test_a_local_folder_in_every_way_to_write_it(tmp_path: Path, random_sae: RandomSae) -> None:
    sae = random_sae()
    save_gemma_scope(tmp_path / "saes" / FOLDER, sae, {})
    refs = [f"./saes/{FOLDER}", f"saes/{FOLDER}", str(tmp_path / "saes" / FOLDER)]
    assert {load_sae(ref, tmp_path).spec.sha256 for ref in refs} == {sae.spec.sha256}
    assert load_sae("./saes", tmp_path, FOLDER).spec == sae.spec


def test_a_shipped_folder(tmp_path: Path, random_sae: RandomSae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ft_audit.configs.__spec__, "submodule_search_locations", [str(tmp_path)])
    save_gemma_scope(tmp_path / "saes" / "mine", random_sae(), {})
    assert load_sae("configs:saes/mine", Path("/nowhere")).spec == random_sae().spec
    with pytest.raises(SaeError, match="'configs:saes/other': no such folder"):
        load_sae("configs:saes/other", tmp_path)


@pytest.fixture
def hub_cache(tmp_path: Path, random_sae: RandomSae, monkeypatch: pytest.MonkeyPatch) -> JumpReluSae:
    """A hub cache that holds one repository, in the hub client's own layout, and no way to the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "hub" / "models--owner--scope"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    sae = random_sae()
    save_gemma_scope(repo / "snapshots" / ("0" * 40) / FOLDER, sae, {})
    return sae


def test_a_hub_repository_and_its_folder(hub_cache: JumpReluSae, tmp_path: Path) -> None:
    for ref, folder in [
        ("owner/scope", FOLDER),
        (f"owner/scope/{FOLDER}", None),
        (f"hub:owner/scope/{FOLDER}", None),
    ]:
        assert load_sae(ref, tmp_path, folder).spec == hub_cache.spec


def test_only_what_is_read_is_fetched(
    hub_cache: JumpReluSae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []
    fetch = huggingface_hub.snapshot_download

    def record(repo_id: str, *, allow_patterns: list[str]) -> str:
        asked.append((repo_id, allow_patterns))
        return str(fetch(repo_id, allow_patterns=allow_patterns))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
    load_sae(f"owner/scope/{FOLDER}", tmp_path)
    (repo_id, patterns), *more = asked
    assert repo_id == "owner/scope" and not more
    wanted = ["config.json", "params.safetensors", "params_layer_3.safetensors", "cfg.json", "ae.pt"]
    assert all(any(fnmatch(f"{FOLDER}/{name}", pattern) for pattern in patterns) for name in wanted)
    unwanted = [f"{FOLDER}/examples.safetensors", "resid_post/layer_4/params.safetensors", "README.md"]
    assert not any(fnmatch(name, pattern) for name in unwanted for pattern in patterns)
    find_sae(f"owner/scope/{FOLDER}", tmp_path, examples=True)
    assert f"{FOLDER}/examples.safetensors" in asked[1][1]
    with pytest.raises(SaeError, match=r"has no layer4\.sae\.pt with a dictionary"):
        find_sae("owner/scope/layer4.sae.pt", tmp_path)
    assert asked[2] == ("owner/scope", ["layer4.sae.pt"])


def test_a_repository_that_is_a_dictionary_itself(hub_cache: JumpReluSae, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--scope" / "snapshots" / ("0" * 40)
    save_gemma_scope(snapshot, hub_cache, {})
    assert load_sae("owner/scope/.", tmp_path).spec == hub_cache.spec


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SAELens's list, as it is laid out, in the place of an installed SAELens."""
    entry = {"repo_id": "owner/scope", "model": "tiny/model", "conversion_func": "gemma_3"}
    listed = {
        "tiny-res": entry | {"saes": [{"id": "layer_3/medium", "path": FOLDER}]},
        "tiny-gated": entry | {"conversion_func": "temporal", "saes": [{"id": "a", "path": "a"}]},
        "tiny-centred": entry
        | {
            "config_overrides": {"model_from_pretrained_kwargs": {"center_writing_weights": True}},
            "saes": [{"id": "a", "path": "a"}],
        },
    }
    package = tmp_path / "packages" / "sae_lens"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('only its list is read')")
    (package / "pretrained_saes.yaml").write_text(yaml.safe_dump(listed))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.delitem(sys.modules, "sae_lens", raising=False)
    read_list.cache_clear()
    yield
    read_list.cache_clear()


@pytest.mark.usefixtures("releases")
def test_a_release_of_saelens_is_found_in_its_list(hub_cache: JumpReluSae, tmp_path: Path) -> None:
    assert load_sae("saelens:tiny-res/layer_3/medium", tmp_path).spec == hub_cache.spec


@pytest.mark.usefixtures("releases")
@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("saelens:tiny-rez/layer_3/medium", "no release 'tiny-rez'; the nearest are tiny-res"),
        (
            "saelens:tiny-res/layer_3/big",
            "release 'tiny-res' has no 'layer_3/big'; the nearest are layer_3/medium",
        ),
        ("saelens:tiny-gated/a", "is of the kind 'temporal', which is not read"),
        ("saelens:tiny-centred/a", "trained on a stream whose mean TransformerLens takes out"),
    ],
)
def test_a_release_that_cannot_be_read_is_refused(ref: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SaeError, match=re.escape(says)):
        load_sae(ref, tmp_path)


def test_without_saelens_a_release_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_list.cache_clear()
    monkeypatch.setattr(ft_audit.sae.releases, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install sae-lens, or give the repository"):
        load_sae("saelens:gemma-scope-2b-pt-res/layer_3", tmp_path)


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("owner/scope", "a hub repository needs the folder in it too"),
        ("owner/scope/resid_post/layer_4", "the repository has no resid_post/layer_4 with a dictionary"),
        ("owner/other/resid_post/layer_3", "cannot fetch it from the hub (LocalEntryNotFoundError"),
        ("owner/sp ace/resid_post/layer_3", "cannot fetch it from the hub (HFValidationError"),
        ("./owner/scope", "no such folder"),
    ],
)
def test_what_is_not_there_is_an_error(hub_cache: JumpReluSae, tmp_path: Path, ref: str, says: str) -> None:
    with pytest.raises(SaeError, match=re.escape(says)):
        load_sae(ref, tmp_path)
