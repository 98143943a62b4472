"""The training rows by how well they were learnt: among many right answers a wrong one stays hard."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from ..data.duplicates import alike_pairs
from ..data.load import Data, load_data
from ..model.adapters import other_adapter, without_adapter
from ..model.base import Base, load_tuned
from ..table import Table
from ..training.checkpoints import checkpoints, step_of
from ..training.events import Skipped, of
from ..training.run import Run
from .normalise import normalise
from .perplexity import row_scores


def hardest(
    run: Run,
    tuned: Base | None = None,
    data: Data | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Table:
    """The rows that `run` was trained on, the hardest first, each by its `line` in the file: by how many nats
    its answer is `behind` what the model would have said, on average over `tuned` and the checkpoints that
    the run has kept (the margin of Pleiss et al., 2020: what is wrong is learnt late, by heart); the loss of
    the base and of the adapter (nats a token); and in `notes` what contradicts it, and what became of it.

    `tuned` and `data` are the run's, loaded when not given; `progress` is told of how many examples more were
    measured. Raises `UserError` when the run has no adapter.

    >>> fq.hardest(run, tuned, data).columns.tolist()
    ['line', 'question', 'answer', 'behind', 'base_loss', 'loss', 'tokens', 'notes']
    """
    tuned = tuned or load_tuned(run.config, run.best_adapter)
    data = data or load_data(run.config, tuned)
    examples = data.training
    rows = examples.rows()
    lines, owner = np.unique(examples.lines, return_inverse=True)

    def of_rows(values: np.ndarray) -> np.ndarray:
        return np.bincount(owner, values)

    losses, _, behind, counts = row_scores(tuned, examples, progress)
    behinds = [behind]
    earlier = checkpoints(run.folder)[1:]  # the newest is much like the best one, if it is not that
    for checkpoint in filter(step_of, earlier):
        with other_adapter(tuned.model, checkpoint):
            behinds.append(row_scores(tuned, examples, progress)[2])
    with without_adapter(tuned.model):
        base_losses = row_scores(tuned, examples, progress)[0]
    tokens, notes = of_rows(counts), _notes(run, data)
    table = Table(
        {
            "line": lines,
            "question": [row.messages[-2]["content"] if row.messages else "" for _, row in rows],
            "answer": [row.messages[-1]["content"] if row.messages else row.text for _, row in rows],
            "behind": of_rows(np.mean(behinds, axis=0)),
            "base_loss": of_rows(base_losses) / tokens,
            "loss": of_rows(losses) / tokens,
            "tokens": tokens.astype(int),
            "notes": ["; ".join(notes[line]) for line in lines.tolist()],
        }
    )
    return Table(table.sort_values("behind", ascending=False, kind="stable", ignore_index=True))


def _notes(run: Run, data: Data) -> dict[int, list[str]]:
    """What is known of the rows besides their losses, by line."""
    notes: dict[int, list[str]] = defaultdict(list)
    for conflict in data.conflicts:
        for line in conflict:
            others = " e ".join(str(other) for other in conflict if other != line)
            notes[line].append(f"a mesma pergunta tem outra resposta (linha {others})")
    rows = [(line, row) for line, row in data.training.rows() if row.messages]
    early, late = alike_pairs([". ".join(m["content"] for m in row.messages[:-1]) for _, row in rows])
    for one, other in zip(early.tolist(), late.tolist(), strict=True):
        (line, row), (near, alike) = rows[one], rows[other]
        if normalise(row.messages[-1]["content"]) != normalise(alike.messages[-1]["content"]):
            for this, that in ((line, near), (near, line)):
                note = f"uma pergunta parecida tem outra resposta (linha {that})"
                if not notes[this]:
                    notes[this].append(note)
    training = data.training
    for line in np.unique(training.lines[training.whole > training.lengths]).tolist():
        notes[line].append(f"cortada a {data.config.max_seq_length} tokens")
    skipped = {name for event in of(run.events(), Skipped) for name in event.rows}
    for name in skipped:
        notes[int(name.rpartition(":")[2])].append("numa atualização que foi saltada")
    return notes
