"""Recognises the original auditing toolkit's YAML and says, key by key, what ours is called."""

from typing import Any

from ft_audit.engine.config.document import Document, Place
from ft_audit.errors import ConfigError


def refuse_toolkit_keys(document: Document) -> None:
    """Raise a ConfigError that translates every key of the original toolkit, if there is any."""
    found = [*_top(document.values), *_models(document.values.get("models")), *_interp(document.values)]
    if found:
        order = list(document.origins)
        found.sort(key=lambda key: order.index(key[0]))
        lines = [f"  {document.origin(place)}: {'.'.join(map(str, place))}: {ours}" for place, ours in found]
        raise ConfigError(
            f"{document.source}: these keys belong to the original toolkit; ft-audit says the same so:\n"
            + "\n".join(lines)
            + "\nA complete example is configs/template_hf.yaml."
        )


def _top(values: dict[str, Any]) -> list[tuple[Place, str]]:
    found: list[tuple[Place, str]] = []
    if "backend" in values:
        why = "leave it out: models run on Hugging Face transformers (what encodes is precompute.backend)"
        found.append((("backend",), why))
    if "project" in values:
        project = _mapping(values["project"])
        name = project.get("name", "...")
        found.append((("project",), f"write `name: {name}`, and `store: FOLDER` for results_dir"))
    dataset = _mapping(values.get("dataset"))
    if "training_jsonl" in dataset:
        found.append((("dataset", "training_jsonl"), f"write `dataset: {dataset['training_jsonl']}`"))
    return found


def _models(models: Any) -> list[tuple[Place, str]]:
    found: list[tuple[Place, str]] = []
    for theirs, ours in (("base", "base"), ("adversarial", "tuned")):
        value = _mapping(models).get(theirs)
        model_id = _mapping(value).get("model_id", _mapping(value).get("id_or_path", value))
        if isinstance(value, dict):
            key = "model_id" if "model_id" in value else "id_or_path" if "id_or_path" in value else None
            place = ("models", theirs, key) if key else ("models", theirs)
            shown = model_id if key else "REFERENCE"
            found.append((place, f"write `models.{ours}: {shown}`"))
        elif theirs == "adversarial" and value is not None:
            found.append((("models", theirs), f"write `models.tuned: {model_id}`"))
    if "benign" in _mapping(models):
        why = "leave it out: benign fine-tunes are compared through the bank, `audit.bank`"
        found.append((("models", "benign"), why))
    return found


def _interp(values: dict[str, Any]) -> list[tuple[Place, str]]:
    if "interp" not in values:
        return []
    interp = _mapping(values["interp"])
    found: list[tuple[Place, str]] = []
    if "sae" in interp:
        sae = _mapping(interp["sae"])
        weights = _mapping(sae.get("weights"))
        layer = sae.get("layer", "LAYER")
        repo = sae.get("repo_id", weights.get("repo_id", "REPO"))
        folder = f"resid_post/layer_{layer}_width_16k_l0_medium"
        hook = f"{{layer: {layer}, site: resid_post, saes: [{{repo_id: {repo}, folder: {folder}}}]}}"
        found.append((("interp", "sae"), f"write `hooks: [{hook}]`"))
    if "neuronpedia" in interp:
        model = _mapping(interp["neuronpedia"]).get("model_id", "MODEL")
        source = f"{{sae: NAME, model: {model}, source: SOURCE}}"
        found.append((("interp", "neuronpedia"), f"write `labels: {{neuronpedia: {{sources: [{source}]}}}}`"))
    return found or [(("interp",), "write `hooks`, one entry a layer, with its saes")]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
