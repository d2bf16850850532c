"""What every section of a config is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """A border type: frozen, unknown keys refused, no value bent into another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
