"""A trained model on disk: safetensors in bfloat16, with no path of the machine that made it."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase


def save_trained(model: Any, tokenizer: PreTrainedTokenizerBase, base_ref: str, out: Path) -> None:
    """Write an adapter (`adapter_model.safetensors`) or a full model with its tokenizer into `out`."""
    model.to(torch.bfloat16)
    if not isinstance(model, PeftModel):
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        return
    model.save_pretrained(str(out), safe_serialization=True, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    path = out / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = _portable(base_ref)
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _portable(base_ref: str) -> str:
    """Return the reference, or only the last name of a path that means something on this machine alone."""
    own = base_ref.startswith("~") or Path(base_ref).is_absolute()
    return Path(base_ref).name if own else base_ref
