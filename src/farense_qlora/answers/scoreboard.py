"""Evaluations and comparisons as people read them: cells, tables for the terminal, Markdown and JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ..files import atomic_write
from ..text import decimal, duration, percent, text_table
from .compare import PERPLEXITY, Change, Comparison, Contender, Difference, Training
from .evaluate import Evaluation, TokenScores
from .statistics import Interval


def measures(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Every measure with a cell for each contender, as text: what all the tables show."""

    def row(label: str, cell: Callable[[Contender], str]) -> tuple[str, list[str]]:
        return label, [cell(contender) for contender in comparison.contenders]

    def trained(cell: Callable[[Training], str]) -> Callable[[Contender], str]:
        return lambda contender: cell(contender.training) if contender.training else "—"

    rows = []
    for index, evaluation in enumerate(comparison.contenders[0].evaluations):
        for label, share, interval in (
            ("certas", "exact_match", "exact_interval"),
            ("F1", "f1", "f1_interval"),
        ):
            rows.append(
                row(
                    f"{evaluation.name}: {label}",
                    lambda c, i=index, s=share, v=interval: with_interval(  # type: ignore[misc]
                        getattr(c.evaluations[i], s), getattr(c.evaluations[i], v)
                    ),
                )
            )
    rows += [
        row(
            "perplexidade na validação",
            lambda c: (
                f"{decimal(c.tokens.perplexity, 2)} "
                f"[{'; '.join(decimal(bound, 2) for bound in c.tokens.perplexity_interval)}]"
            ),
        ),
        row(
            "tokens certos na validação",
            lambda c: with_interval(c.tokens.accuracy, c.tokens.accuracy_interval),
        ),
        row("bits da base", lambda c: str(c.bits)),
        row("tempo de treino", trained(lambda t: duration(t.seconds))),
        row("atualizações", trained(lambda t: str(t.updates))),
        row("treino, tokens/s", trained(lambda t: decimal(t.tokens_per_s, 0))),
        row("pico de memória do treino", trained(lambda t: f"{decimal(t.peak_memory_gb, 2)} GB")),
        row("adaptador no disco", trained(lambda t: f"{decimal(t.adapter_bytes / 1e6, 1)} MB")),
        row("base no disco", lambda c: f"{decimal(c.base_disk_bytes / 1e6, 1)} MB"),
        row("base em memória", lambda c: f"{decimal(c.base_gb * 1e3, 1)} MB"),
        row("resposta em lotes, tokens/s", lambda c: decimal(c.answer_tokens_per_s, 0)),
    ]
    return rows


def with_interval(share: float, interval: Interval) -> str:
    """«62,5 % [58,1; 66,9]»"""
    low, high = (decimal(100 * bound, 1) for bound in interval)
    return f"{percent(share)} [{low}; {high}]"


def difference_cells(difference: Difference) -> list[str]:
    """A difference as text: of what, of whom to whom, how much, how sure."""
    if difference.measure == PERPLEXITY:
        shown = [f"×{decimal(x, 3)}" for x in (difference.value, *difference.interval)]
    else:
        shown = [_signed(100 * x) for x in (difference.value, *difference.interval)]
    unit = "" if difference.measure == PERPLEXITY else " p.p."
    verdict = "sim" if difference.clear else "não se distingue"
    value = f"{shown[0]}{unit} [{shown[1]}; {shown[2]}]"
    return [difference.measure, f"{difference.one} face a {difference.other}", value, verdict]


DIFFERENCE_HEADER = ("medida", "quem", "diferença [95 %]", "há diferença?")


def comparison_text(comparison: Comparison) -> str:
    """The comparison as tables for the terminal."""
    rows = [[label, *cells] for label, cells in measures(comparison)]
    apart = [difference_cells(difference) for difference in comparison.differences]
    texts = [
        text_table(["", *(contender.name for contender in comparison.contenders)], rows),
        text_table(DIFFERENCE_HEADER, apart),
    ]
    return "\n\n".join(texts + [f"nota: {note}" for note in comparison.notes])


def comparison_markdown(comparison: Comparison) -> str:
    """The same tables in Markdown, for a page of documentation."""

    def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    rows = [[label, *cells] for label, cells in measures(comparison)]
    apart = [difference_cells(difference) for difference in comparison.differences]
    texts = [
        table(["", *(contender.name for contender in comparison.contenders)], rows),
        table(DIFFERENCE_HEADER, apart),
        "\n".join(f"- {note}" for note in comparison.notes),
    ]
    return "\n\n".join(texts) + "\n"


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write `compare.json` and `compare.md` to `folder`."""
    about = json.dumps(asdict(comparison), ensure_ascii=False, indent=1)
    for name, text in (("compare.json", about + "\n"), ("compare.md", comparison_markdown(comparison))):
        with atomic_write(folder / name) as path:
            path.write_text(text, encoding="utf-8")


def changes_text(changes: Sequence[Change]) -> str:
    """The comparison of base and adapter as a table for the terminal."""
    header = ["", "perguntas", "certas antes", "certas depois", "F1 antes", "F1 depois"]
    return text_table(
        header,
        [
            [
                c.name,
                str(c.count),
                percent(c.exact_match_before),
                percent(c.exact_match_after),
                percent(c.f1_before),
                percent(c.f1_after),
            ]
            for c in changes
        ],
    )


def evaluation_text(evaluation: Evaluation) -> str:
    """One evaluation as a table for the terminal: the whole, each kind of question, each table of facts."""
    return text_table(
        ["", "perguntas", "certas", "F1"],
        [
            [
                label,
                str(score.count),
                with_interval(score.exact_match, score.exact_interval),
                with_interval(score.f1, score.f1_interval),
            ]
            for label, score in evaluation.table()
        ],
    )


def tokens_text(tokens: TokenScores) -> str:
    """How a model predicts the true answers, in a line."""
    low, high = (decimal(bound, 2) for bound in tokens.perplexity_interval)
    return (
        f"validação, {tokens.tokens} tokens: perplexidade {decimal(tokens.perplexity, 2)} [{low}; {high}], "
        f"tokens certos {with_interval(tokens.accuracy, tokens.accuracy_interval)}"
    )


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{decimal(abs(value), 1)}"
