"""How much faster several computers train than one: what they compute against what they send."""

from math import ceil

from ..config import Config
from ..data.load import known_lengths
from ..errors import UserError
from ..model.machine import on_cpu
from ..table import Table
from ..text import decimal
from .cost import estimate

# Bytes a second in each direction, and seconds to the next computer: supposed, and not measured by us.
NETWORKS = {"1 Gb/s": (0.117e9, 200e-6), "10 Gb/s": (1.17e9, 100e-6), "Thunderbolt": (3.5e9, 60e-6)}
COUNTS = (1, 2, 4, 8, 64, 1000)
SMALL_MESSAGES = 4  # an update, besides the gradient: what is asked for takes two, the rest one each


def plan(config: Config, tokens_per_s: float | None = None) -> Table:
    """For 1 to 1,000 computers alike, how many times as fast an update of `config` is, and the share of it
    that goes to the network; by the tokens a second of one, or else the seconds that `fit` measured here.

    A ring of N sends 2 (N - 1) / N of the gradient through every computer, in 2 (N - 1) steps (Patarasuk &
    Yuan, 2009). An update is at most shared out row by row; rows that were never tokenized here are taken to
    be as long as they may. Raises `UserError` when there is nothing to go by.
    """
    cost, lengths = estimate(config, on_cpu()), known_lengths(config)
    rows = config.batch_size * config.grad_accumulation_steps
    tokens = rows * (config.max_seq_length if lengths is None else float(lengths.mean()))
    measured = cost.seconds / cost.updates if cost.seconds and cost.updates else None
    alone = tokens / tokens_per_s if tokens_per_s else measured
    if not alone or not cost.trainable:
        raise UserError(
            "não sei quanto demora uma atualização: corra primeiro «farense-qlora fit», ou diga com "
            "--tokens-per-second quantos tokens por segundo faz um computador"
        )
    message = (2 if config.reduce_dtype == "bfloat16" else 4) * cost.trainable
    table = []
    for count in COUNTS:
        computing, hops = alone * ceil(rows / count) / rows, 2 * (count - 1)
        cells = []
        for bandwidth, latency in NETWORKS.values():
            sending = hops / count * message / bandwidth + (1 + SMALL_MESSAGES) * hops * latency
            whole = computing + sending
            cells.append(f"{decimal(alone / whole, 1)} × ({decimal(100 * sending / whole, 0)} % na rede)")
        table.append((count, *cells))
    caption = (
        f"Uma atualização: {rows} linhas, {decimal(tokens, 0)} tokens, {decimal(alone, 2)} s num só; um "
        f"gradiente de {decimal(message / 1e6, 1)} MB. Calculado, com redes supostas"
    )
    return Table(table, columns=["Computadores", *NETWORKS], caption=caption)
