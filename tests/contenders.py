"""Contenders of a comparison without a model: they answer what the test says."""

from farense_qlora.answers.compare import Contender
from farense_qlora.answers.evaluate import TokenScores, judge, summary
from farense_qlora.data.rows import Row


def contender(name: str, right: int, loss: float, count: int = 40) -> Contender:
    """One that answers the first `right` of `count` questions, at `loss` nats a token."""
    judged = []
    for n in range(count):
        turns = ({"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Sim."})
        judged.append(judge(Row(messages=turns), "Sim." if n < right else f"Não ({name})."))
    tokens = TokenScores(80, 2.718**loss, 0.5, (1, 9), (0, 1), (2 * loss,) * count, (2,) * count)
    return Contender(name, 4, None, 0.1, 1000, 50.0, tokens, (summary("novas", judged),))
