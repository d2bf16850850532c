"""What a candidate must be before anything of it is read: whoever sends it in is not trusted.

The base is, and what it takes to read it is the measure for its candidates.
"""

from pathlib import Path

from ft_audit.engine.models.adapter import FILE, check_settings
from ft_audit.engine.models.declared import check_counts, check_generation, check_shapes, skeleton
from ft_audit.engine.models.headers import check_index, read_headers, weight_files
from ft_audit.engine.models.vocabulary import check_tokenizer
from ft_audit.errors import ModelError

# A base of four bits a weight and a candidate of 32, with room for tokens of its own.
TIMES_THE_BASE, SPARE_BYTES = 16, 1 << 30


def check_checkpoint(ref: str, folder: Path, base: Path) -> None:
    """Raise ModelError unless `folder` is a full model that is safe to read beside the one in `base`."""
    paths = weight_files(folder, ref)
    _check_size(sorted(folder.glob("*.safetensors")), base, ref)  # all of them are hashed
    held = read_headers(paths, ref)
    check_index(folder, held, ref)
    check_counts(folder, len(held), ref)
    check_tokenizer(folder, ref)
    model = skeleton(folder, ref)
    check_shapes(model, held, ref)
    check_generation(model, folder, ref)


def check_adapter(ref: str, folder: Path, base: Path) -> None:
    """Raise ModelError unless `folder` is a PEFT adapter that is safe to put on the model in `base`."""
    _check_size([folder / FILE], base, ref)
    held = read_headers([folder / FILE], ref)
    if (folder / "config.json").exists():  # not the model's, but what reads a tokenizer looks at it
        check_counts(folder, len(held), ref)
    check_settings(folder, held, base, ref)
    check_tokenizer(folder, ref)


def _check_size(paths: list[Path], base: Path, ref: str) -> None:
    ours = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    theirs = sum(path.stat().st_size for path in paths)
    if theirs > TIMES_THE_BASE * ours + SPARE_BYTES:
        raise ModelError(
            f"model {ref!r}: its safetensors have {theirs:,} bytes, more than {TIMES_THE_BASE} times the "
            f"base's {ours:,}; give the base that it was fine-tuned from"
        )
