"""Entries of a comparison without a model: they answer what the test says."""

from farense_qlora.answers.compare import Comparison, Entry, differences
from farense_qlora.answers.evaluate import answered, judge
from farense_qlora.answers.perplexity import TokenScores
from farense_qlora.data.rows import Row


def contender(name: str, right: int, loss: float, count: int = 40) -> Entry:
    """One that answers the first `right` of `count` questions, at `loss` nats a token."""
    judged = []
    for n in range(count):
        turns = ({"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Sim."})
        judged.append(judge(Row(messages=turns), "Sim." if n < right else f"Não ({name})."))
    tokens = TokenScores(
        tokens=80,
        perplexity=2.718**loss,
        accuracy=0.5,
        perplexity_interval=(1, 9),
        accuracy_interval=(0, 1),
        row_losses=(2 * loss,) * count,
        row_tokens=(2,) * count,
    )
    return Entry(
        name=name,
        bits=4,
        training=None,
        base_gb=0.1,
        base_disk_bytes=1000,
        answer_tokens_per_s=50.0,
        tokens=tokens,
        general=tokens,
        evaluations=(answered("novas", judged),),
    )


def comparison(*entries: Entry, notes: tuple[str, ...] = ()) -> Comparison:
    """The comparison of `entries`."""
    return Comparison(model="mini", contenders=entries, pairs=tuple(differences(entries)), notes=notes)
