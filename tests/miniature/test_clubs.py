"""Invented clubs: consistent, reproducible, and asked about in every way in which the real one is."""

import re
import time
from pathlib import Path

import pytest
from clubs import invented

from farense_qlora.data.facts import read_tables
from farense_qlora.data.prepare import FARENSE
from farense_qlora.data.questions import questions
from farense_qlora.data.wordings import Question

FACTS = Path(__file__).parents[2] / "data" / "facts"


def types(asked: list[Question]) -> set[tuple[str, str, str]]:
    """What is asked, without of whom and when."""
    found = set()
    for question in asked:
        last = question.fact.split("/")[-1]
        if question.table == "club":
            last = "" if question.kind in ("facto", "conversa") else last
        found.add((question.table, question.kind, last))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_every_type_of_real_question_is_asked_of_an_invented_club(seed: int) -> None:
    real = questions(read_tables(FACTS), FARENSE)
    assert types(real) <= types(questions(*invented(seed)))


def test_all_wordings_of_the_clubs_own_table_are_asked_of_an_invented_club() -> None:
    def wordings(asked: list[Question]) -> int:
        return sum(question.table == "club" for question in asked)

    assert wordings(questions(*invented(0))) >= wordings(questions(read_tables(FACTS), FARENSE))


def test_equal_seeds_give_equal_clubs_and_others_do_not() -> None:
    assert invented(7) == invented(7)
    assert invented(7) != invented(8)


def test_tables_add_up() -> None:
    tables, _ = invented(3)
    for season in tables.seasons:
        assert season.wins + season.draws + season.losses == season.played
        assert season.points == season.points_per_win * season.wins + season.draws
        assert 1 <= season.position <= season.teams
    for cup in tables.cups:
        assert cup.wins + cup.draws + cup.losses == cup.matches


def test_no_invented_club_is_the_real_one_and_both_genders_occur() -> None:
    clubs = [invented(seed)[1] for seed in range(60)]
    assert "Farense" not in {club.name for club in clubs}
    assert {club.gender for club in clubs} == {"o", "a"}
    assert len({club.name for club in clubs}) > 55


def test_values_spread_wide() -> None:
    seasons = [season for seed in range(5) for season in invented(seed)[0].seasons]
    assert {season.position for season in seasons} >= set(range(1, 18))
    goals = [season.goals_for for season in seasons]
    assert min(goals) < 15 and max(goals) > 60


def test_texts_are_well_formed() -> None:
    for question in questions(*invented(11)):
        for text in question.texts:
            assert "{" not in text and "  " not in text and ".." not in text, text
            assert not re.search(r"\b(de|em|por) (o|os|as) [A-Z]", text), text


def test_is_fast_enough_to_make_clubs_while_training() -> None:
    start = time.process_time()
    made = sum(len(questions(*invented(seed))) for seed in range(10))
    assert made / (time.process_time() - start) > 2000
