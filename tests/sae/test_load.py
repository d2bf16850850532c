"""References to dictionaries: local folders, shipped data and the hub."""

import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

import ft_audit.configs
from ft_audit.errors import SaeError
from ft_audit.sae.formats.gemma_scope import save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.load import load_sae

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


def test_only_the_two_files_are_fetched(
    hub_cache: JumpReluSae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    fetch = huggingface_hub.snapshot_download

    def record(repo_id: str, *, allow_patterns: list[str]) -> str:
        asked.append((repo_id, allow_patterns))
        return str(fetch(repo_id, allow_patterns=allow_patterns))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
    load_sae(f"owner/scope/{FOLDER}", tmp_path)
    assert asked == [("owner/scope", [f"{FOLDER}/config.json", f"{FOLDER}/params.safetensors"])]


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("owner/scope", "a hub repository needs the folder in it too"),
        ("owner/scope/resid_post/layer_4", "has no resid_post/layer_4/params.safetensors"),
        ("owner/other/resid_post/layer_3", "cannot fetch it from the hub (LocalEntryNotFoundError"),
        ("owner/sp ace/resid_post/layer_3", "cannot fetch it from the hub (HFValidationError"),
        ("./owner/scope", "no such folder"),
    ],
)
def test_what_is_not_there_is_an_error(hub_cache: JumpReluSae, tmp_path: Path, ref: str, says: str) -> None:
    with pytest.raises(SaeError, match=re.escape(says)):
        load_sae(ref, tmp_path)
