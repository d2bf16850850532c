"""Fine-tuning: recipes or a user's own data set to an adapter or a full model, with a gate."""

from ft_audit.engine.finetune.run import run_finetune

__all__ = ["run_finetune"]
