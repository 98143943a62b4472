"""Losses and gradients that are out of the ordinary, and when to give up on a learning rate."""

import math
import statistics
from collections.abc import Sequence

# Skipped updates in a row until training goes back to the last checkpoint, and how often it may go back.
SKIPS_UNTIL_ROLLBACK, ROLLBACKS = 3, 3
# How many losses a new one is compared with, at least and at most.
FEWEST, MOST = 16, 64
DEVIATIONS = 8.0


def not_finite(loss: float, grad_norm: float) -> str | None:
    """Which of the two is not a finite number, in Portuguese; None when both are."""
    if not math.isfinite(loss):
        return f"a perda não é um número finito ({loss})"
    if not math.isfinite(grad_norm):
        return f"o gradiente não é finito (norma {grad_norm})"
    return None


def spike_bound(losses: Sequence[float]) -> float:
    """The loss above which the next one is a spike: median + 8 standard deviations, these estimated from the
    median absolute deviation (Rousseeuw & Croux, 1993); infinite while there are too few losses."""
    if len(losses) < FEWEST:
        return math.inf
    median = statistics.median(losses)
    deviation = 1.4826 * statistics.median(abs(loss - median) for loss in losses)
    return median + DEVIATIONS * max(deviation, 0.01 * abs(median))


def diagnosis(cause: str, rows: Sequence[str], learning_rate: float) -> str:
    """What to tell the user when halving the learning rate did not help."""
    shown = ", ".join(rows[:4]) + (" …" if len(rows) > 4 else "")
    return (
        f"{cause} em {SKIPS_UNTIL_ROLLBACK} atualizações seguidas, mesmo depois de reduzir {ROLLBACKS} "
        f"vezes a taxa de aprendizagem (agora {learning_rate:g}); veja as linhas {shown}, baixe "
        "learning_rate ou ligue max_grad_norm"
    )
