"""The comparison as figure, page and blind vote: no answer gives away whose it is before the end."""

from pathlib import Path

from contenders import comparison as compared
from contenders import contender

from farense_qlora.answers.compare import Comparison
from farense_qlora.ui.comparison import (
    BlindVote,
    ComparisonView,
    comparison_figure,
    comparison_page,
    disputed,
    save_comparison,
)


def comparison() -> Comparison:
    entries = (contender("base", 10, 2.0), contender("LoRA", 30, 1.0), contender("<QLoRA>", 32, 1.0))
    return compared(*entries, notes=("cuidado <aqui>",))


def test_the_page_is_whole_loads_nothing_and_lets_no_markup_in(tmp_path: Path) -> None:
    page = comparison_page(comparison())
    assert "&lt;QLoRA&gt;" in page and "<QLoRA>" not in page and "<aqui>" not in page
    assert "http" not in page and "<script" not in page
    assert "75,0 % [" in page and "✓ Sim." in page
    assert '<td title="&lt;QLoRA&gt;">✗ Não' in page  # whose an answer is, also where columns do not fit
    assert save_comparison(comparison(), tmp_path).read_text(encoding="utf-8") == page
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_has_a_panel_for_each_set_and_a_bar_for_each_contender() -> None:
    (axes,) = comparison_figure(comparison()).axes
    assert [round(bar.get_width()) for bar in axes.patches] == [25, 75, 80]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["base", "LoRA", "<QLoRA>"]


def test_the_view_reads_in_a_notebook_and_in_a_terminal() -> None:
    for text in (comparison()._repr_html_(), repr(ComparisonView(comparison()))):
        assert "75,0 % [" in text and "LoRA face à base" in text


def test_only_questions_answered_differently_are_voted_on() -> None:
    assert len(disputed(comparison())) == 30  # all but the ten that everyone knows


def test_a_blind_vote_is_tallied_by_contender_whatever_the_column() -> None:
    vote = BlindVote(comparison(), count=12, seed=1)
    orders, shared = set(), 0
    for _ in range(12):
        orders.add(str(vote._order))
        assert not any(name in vote._text.value for name in ("LoRA<", "QLoRA&gt;<", ">base<"))
        assert not vote._result.value
        (column,) = (number for number, whose in enumerate(vote._order) if 1 in whose)
        shared += 2 in vote._order[column]  # the third says the same: one column, and one vote for both
        shown = [button for button in vote._buttons if button.layout.display != "none"]
        assert len(shown) == vote._text.value.count("Resposta ") + 1 == len(vote._order) + 1
        vote._buttons[column].click()  # where LoRA's answer happens to be
    assert len(orders) > 1 and 0 < shared < 12
    assert vote.votes == {"LoRA": 12, "<QLoRA>": shared}
    assert "LoRA" in vote._result.value and "12" in vote._result.value
    assert all(button.disabled for button in vote._buttons)


def test_a_vote_can_be_a_draw_and_end_early() -> None:
    vote = BlindVote(comparison(), count=5)
    vote._buttons[-1].click()
    vote._reveal_button.click()
    assert vote.votes == {"nenhuma é melhor": 1}
    assert vote._result.value.count("<tr>") == 5 + 1 + 1  # the tally with its heading, one question with its


def test_a_vote_on_nothing_says_so() -> None:
    same = (contender("base", 40, 2.0), contender("LoRA", 40, 1.0))
    vote = BlindVote(compared(*same))
    assert "Não há respostas diferentes" in vote._result.value
