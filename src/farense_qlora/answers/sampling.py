"""How an answer is chosen among those the model could give: the only home of these settings, without MLX."""

import json
from pathlib import Path

from pydantic import Field

from ..config import Settings
from ..text import plain


class Sampling(Settings):
    """Temperature 0 takes the likeliest token, whatever else is set; above it tokens are drawn, by `seed` the
    same each time."""

    temperature: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="de 0 (sempre a mesma resposta, a predefinição) a 2 (a mais variada)",
    )
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="sorteia só os tokens mais prováveis que juntos têm esta probabilidade",
    )
    seed: int | None = Field(
        default=None, ge=0, description="a mesma semente dá a mesma resposta; sem ela, sai outra de cada vez"
    )

    def __str__(self) -> str:
        return f"temperatura {plain(self.temperature)}, top-p {plain(self.top_p)}"


GREEDY = Sampling()


def recommended(model: Path) -> Sampling | None:
    """What the file `generation_config.json` in the folder `model` advises, if it does; what it leaves out is
    1, as for Transformers."""
    try:
        said = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
        given = {name: said[name] for name in ("temperature", "top_p") if said.get(name) is not None}
        return Sampling(**{"temperature": 1.0, **given}) if given and said.get("do_sample", True) else None
    except (OSError, ValueError, AttributeError):  # it is only advice
        return None
