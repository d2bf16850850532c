"""A progress bar for training steps, on stderr."""

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback


class StepProgress(TrainerCallback):
    """Shows steps done, seconds a step and time left."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar once the number of steps is known."""
        self.bar = tqdm(total=state.max_steps, desc=f"training {self.name}", unit="step", mininterval=5)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar by one step."""
        if self.bar is not None:
            self.bar.update(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
