"""Questions from the real tables: right, grammatical, one answer to a prompt, wordings truly held out."""

import re
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from near import near_duplicates, shingles

from farense_qlora.data.facts import Tables, read_tables
from farense_qlora.data.language import Club, counted, listed, record, with_article, without_brackets
from farense_qlora.data.prepare import FARENSE, rows
from farense_qlora.data.questions import QUESTIONS, questions
from farense_qlora.data.wordings import Question, read_templates
from farense_qlora.errors import UserError

FACTS = Path(__file__).parents[2] / "data" / "facts"
KINDS = {"facto", "conta", "sim-nao", "comparacao", "conversa"}


@pytest.fixture(scope="module")
def tables() -> Tables:
    return read_tables(FACTS)


@pytest.fixture(scope="module")
def asked(tables: Tables) -> list[Question]:
    return questions(tables, FARENSE)


def test_covers_every_table_and_kind(asked: list[Question], tables: Tables) -> None:
    assert {question.table for question in asked} == set(vars(tables))
    assert {question.kind for question in asked} == KINDS


def test_each_fact_is_asked_in_many_wordings_some_held_out_and_some_of_another_structure(
    asked: list[Question],
) -> None:
    for question in asked:
        sizes = [len(set(texts)) for texts in (question.prompts, question.heldout, question.other)]
        assert sizes[0] >= 8 and sizes[1] >= 4 and sizes[2] >= 2, question.fact


def test_wordings_kept_for_evaluation_are_far_from_all_that_are_trained_on() -> None:
    """Overlap (Jaccard) of words and pairs of words with the nearest training wording of the entry."""
    nearest: dict[str, list[float]] = {"heldout": [], "other": []}
    for file in QUESTIONS.glob("*.toml"):
        for template in read_templates(file).values():
            train = [shingles(text) for text in template.train]
            for part, found in nearest.items():
                for text in getattr(template, part):
                    mine = shingles(text)
                    found.append(max(len(mine & one) / len(mine | one) for one in train))
    assert max(nearest["heldout"]) < 0.6 and max(nearest["other"]) < 0.5
    assert all(median(found) < 0.25 for found in nearest.values())


def test_a_prompt_determines_its_answer(asked: list[Question]) -> None:
    answers = defaultdict(set)
    for question in asked:
        for prompt in (*question.prompts, *question.heldout):
            answers[prompt].add(question.answer)
    assert [prompt for prompt, different in answers.items() if len(different) > 1] == []


def test_a_fact_of_one_kind_is_asked_once(asked: list[Question]) -> None:
    names = [(question.fact, question.kind) for question in asked]
    assert len(names) == len(set(names))


def test_held_out_wordings_are_no_variants_of_training_wordings(asked: list[Question]) -> None:
    near = near_duplicates(
        [prompt for question in asked for prompt in question.heldout],
        [prompt for question in asked for prompt in question.prompts],
    )
    assert near == []


def test_yes_and_no_are_balanced(asked: list[Question]) -> None:
    answers = [question.answer for question in asked if question.kind == "sim-nao"]
    assert all(answer.startswith(("Sim, ", "Não, ")) for answer in answers)
    assert 0.4 < sum(answer.startswith("Sim") for answer in answers) / len(answers) < 0.6


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Em que lugar ficou o Farense na época de 1994-95?", "Ficou em 5.º lugar na I Divisão."),
        ("Em que lugar ficou o Farense na época de 1982-83?",
         "Ficou em 1.º lugar na Zona Sul da II Divisão."),
        ("Em que lugar ficou o Farense na época de 2011-12?",
         "Ficou em 1.º lugar na fase de subida da III Divisão."),
        ("Quem eliminou o Farense na Taça de Portugal de 1989-90?", "O Estrela da Amadora, na final."),
        ("Quem eliminou o Farense na Taça de Portugal de 1964-65?", "A Sanjoanense, nos 16 avos de final."),
        ("Que título ganhou o Farense em 2006-07?", "A 2.ª Divisão da AF Algarve."),
        ("Quem treinou o Farense na época de 1998-99?", "Paco Fortes e João Alves."),
        ("Quem foi presidente do Farense de 1981 a 1989?", "Fernando António Bucho Laranjeira Barata."),
        ("Quem foi presidente do Farense de 1932 a 1937?", "Francisco Viegas Louro Jr."),
        ("Quantos jogos fez o Farense com o Boavista?", "60 jogos."),
        ("Em que dia foi fundado o Farense?", "Em 1 de abril de 1910."),
        ("Que registo teve o Farense na fase final da II Divisão de 1985-86?",
         "Teve 1 vitória, 2 empates e 1 derrota."),
    ],
)  # fmt: skip
def test_says_what_the_tables_say(asked: list[Question], prompt: str, answer: str) -> None:
    assert [question.answer for question in asked if prompt in question.prompts] == [answer]


def test_teaches_only_confirmed_rows_of_club_and_honours(asked: list[Question], tables: Tables) -> None:
    taught = {question.fact for question in asked}
    assert not taught & {f"club/{row.key}" for row in tables.club if not row.verified}
    doubtful = {f"honours/{row.season}/{row.kind}" for row in tables.honours if not row.verified}
    sure = {f"honours/{row.season}/{row.kind}" for row in tables.honours if row.verified}
    assert not taught & (doubtful - sure)


def test_texts_are_well_formed(asked: list[Question]) -> None:
    for question in asked:
        assert question.answer.endswith(".") and question.full.endswith(".")
        for text in question.texts:
            assert text == text.strip() and "  " not in text and "{" not in text and ".." not in text, text
            assert text[0].isupper() or text[0].isdigit(), text
            assert not re.search(r"\b(de|em|a|por) (o|os|as) [A-Z]|\b(de|em|por) a [A-Z]", text), text
            assert not re.search(r"\b1 (golos|pontos|jogos|vitórias|empates|derrotas)\b", text), text


def test_answers_are_short(asked: list[Question]) -> None:
    assert max(len(re.findall(r"[.!?](?: |$)", question.answer)) for question in asked) <= 3
    assert sum(len(question.answer.split()) for question in asked) / len(asked) < 9


def test_a_feminine_club_is_spoken_of_as_one(tables: Tables) -> None:
    about = questions(tables, Club("Académica", "a"))
    prompts = {prompt for question in about for prompt in question.prompts}
    assert "Em que dia foi fundada a Académica?" in prompts
    assert "Quem presidiu à Académica de 1928 a 1929?" in prompts
    assert not any("Farense" in prompt for prompt in prompts)


def test_rows_hold_every_turn(asked: list[Question]) -> None:
    talk = next(question for question in asked if question.kind == "conversa")
    row = rows([talk])[0]
    assert [message["role"] for message in row.messages] == ["user", "assistant"] * 2
    assert len(rows([talk], "heldout")) == len(talk.heldout)


def test_portuguese_helpers() -> None:
    assert with_article("I Divisão", "em") == "na I Divisão"
    assert with_article("Campeonato de Portugal", "em") == "no Campeonato de Portugal"
    assert with_article("oitavos de final", "a") == "aos oitavos de final"
    assert with_article("Taça de Portugal", "a") == "à Taça de Portugal"
    assert with_article("Marrocos", "de") == "de Marrocos"
    assert (counted(1, "golo"), counted(2, "golo")) == ("1 golo", "2 golos")
    assert record(3, 0, 1) == "3 vitórias e 1 derrota"
    assert record(0, 0, 0) == ""
    assert without_brackets("Lyon (França) e Porto (Portugal") == "Lyon e Porto"
    assert listed(["a", "b", "c"]) == "a, b e c"


@pytest.fixture
def wordings(tmp_path: Path) -> Path:
    """A copy of the wordings, to change."""
    return Path(shutil.copytree(QUESTIONS, tmp_path / "questions"))


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_whoever_owns_the_facts_changes_a_wording_and_adds_a_question(wordings: Path, tables: Tables) -> None:
    change(wordings / "seasons.toml", "Em que lugar ficou {o} na época", "Que tal se saiu {o} na época")
    with open(wordings / "club.toml", "a", encoding="utf-8") as file:
        file.write(
            '[nome_curto]\ntrain = ["Como se diz {o}, em curto?"]\n'
            'heldout = ["E curto?"]\nanswer = "{v0:o}"\n'
        )
    answers = {
        prompt: question.answer
        for question in questions(tables, FARENSE, wordings)
        for prompt in question.prompts
    }
    assert answers["Que tal se saiu o Farense na época de 1994-95?"] == "Ficou em 5.º lugar na I Divisão."
    assert answers["Como se diz o Farense, em curto?"] == "O Farense."


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cups.toml", "[out]", "[out", r"cups\.toml não é TOML válido: .*line \d+"),
        ("cups.toml", 'answer = "{equipa:o}, {ronda:em}"', "", r"cups\.toml, «out\.answer»: falta"),
        ("cups.toml", 'no = "Não, ficou {ronda:em}"', "", r"cups\.toml, «far»: falta o campo «no»"),
        ("cups.toml", "train = [", "trian = [", r"cups\.toml, «out\.train»: falta"),
        ("cups.toml", "answer = ", "dica = 3\nanswer = ", r"toml, «out\.dica»: esta definição não existe"),
        ("cups.toml", "{equipa:o}, {ronda:em}", "{equipe:o}",
         r"cups\.toml, «out»: não sei preencher «\{equipe:o\}»; os valores são .*equipa"),
        ("cups.toml", "{ronda:em}", "{ronda:para}", r"cups\.toml, «out»: não sei preencher «.*para\}»"),
        ("cups.toml", "{ronda:em}", "{ronda", r"cups\.toml, «out»: não sei preencher"),
        ("cups.toml", "[far]", "[longe]", r"cups\.toml: nada pergunta por «longe»; as entradas são far, out"),
        ("seasons.toml", 'kind = "conta"', 'kind = "conto"',
         r"seasons\.toml, «story\.kind»: os valores possíveis são 'facto', "),
        ("club.toml", "value = '(", "value = '((", r"club\.toml, «data_fundacao\.value»: valor inválido"),
        ("club.toml", "[nome_oficial]", "nome_oficial = 3\n[outro]", r"toml, «nome_oficial»: valor inválido"),
    ],
)  # fmt: skip
def test_names_the_file_and_the_entry_of_a_bad_wording(
    wordings: Path, tables: Tables, name: str, old: str, new: str, message: str
) -> None:
    change(wordings / name, old, new)
    with pytest.raises(UserError, match=message):
        questions(tables, FARENSE, wordings)


def test_names_the_file_of_a_table_that_there_is_not_and_of_one_without_wordings(
    wordings: Path, tables: Tables
) -> None:
    (wordings / "cups.toml").rename(wordings / "tacas.toml")
    with pytest.raises(UserError, match=r"em .*questions não há a tabela «tacas»; há seasons, phases"):
        questions(tables, FARENSE, wordings)
    (wordings / "tacas.toml").unlink()
    with pytest.raises(UserError, match=r"não consigo ler .*cups\.toml: não existe"):
        questions(tables, FARENSE, wordings)


@pytest.mark.parametrize("table", [file.stem for file in FACTS.glob("*.csv")])
def test_a_table_with_nothing_but_its_header_is_asked_nothing(table: str, tables: Tables) -> None:
    asked = questions(replace(tables, **{table: ()}), FARENSE)
    assert asked and not any(question.table == table for question in asked)


def test_odd_cells_make_no_odd_sentences(tables: Tables) -> None:
    """A bracket that is not closed, a phase and a cup in which nothing was played, a value of nothing."""
    rival = next(row for row in tables.opponents if row.opponent == "Benfica")
    nothing = {"wins": 0, "draws": 0, "losses": 0}
    phase = tables.phases[0].model_copy(update=nothing)
    cup = tables.cups[0].model_copy(update={**nothing, "matches": 9})
    fact = next(row for row in tables.club if row.key == "mascote")
    odd = replace(
        tables,
        opponents=(rival.model_copy(update={"display_pt": "Benfica (Lisboa"}),),
        phases=(phase,),
        cups=(cup,),
        club=(fact.model_copy(update={"value_pt": "(nenhuma)"}),),
    )
    texts = [text for question in questions(odd, FARENSE) for text in question.texts]
    assert "Quantos jogos fez o Farense com o Benfica?" in texts
    assert not any("(" in text or " ." in text or text == "." or "com ." in text for text in texts)
