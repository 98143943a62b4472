"""Presidents by term: who held it, and when someone did."""

from collections import defaultdict
from collections.abc import Iterator

from ..facts import President, Tables
from ..language import Club, capital, listed, sentence
from .form import Question, Wordings, ask

TITLES = ("Dr. ", "Prof. ", "Maj. ", "Cap. ", "Eng.º ")
WHO = Wordings(
    (
        "Quem foi presidente {do} {term}?",
        "Quem presidiu {ao} {term}?",
        "Que presidente teve {o} {term}?",
        "Diz-me quem foi o presidente {do} {term}.",
    ),
    ("{Term}, quem esteve à frente {do}?", "Quem dirigiu {o} {term}?"),
)
WHEN = Wordings(
    (
        "Quando foi {name} presidente {do}?",
        "Em que anos presidiu {name} {ao}?",
        "De quando a quando presidiu {name} {ao}?",
        "Diz-me os anos de {name} como presidente {do}.",
    ),
    ("{name} esteve à frente {do} em que período?", "Em que datas dirigiu {name} {o}?"),
)
TALK = Wordings(
    (
        "Queria saber dos presidentes {do}. Quem tomou posse em {year}?",
        "Vamos aos presidentes {do}: quem entrou em {year}?",
        "Sobre a direção {do}: quem passou a presidente em {year}?",
        "Estou a ver a lista de presidentes {do}. Quem começou em {year}?",
    ),
    ("Tenho uma dúvida sobre a presidência {do}: quem assumiu o cargo em {year}?",),
)


def questions(tables: Tables, club: Club) -> Iterator[Question]:
    """Every question about the presidents in `tables`."""
    terms: dict[str, list[str]] = defaultdict(list)
    starts: dict[int, int] = defaultdict(int)
    for president in tables.presidents:
        terms[name(president)].append(term(president))
        starts[president.start_year] += 1
    for president in tables.presidents:
        if president.end_year is None:
            continue  # the club's own table has the president of today
        when = term(president)
        yield ask("facto", f"presidents/{president.order}/who", WHO, sentence(name(president)), club,
                  term=when, Term=capital(when))  # fmt: skip
    for person, held in terms.items():
        if int(held[-1].split()[1]) >= 1970:
            yield ask(
                "facto", f"presidents/{person}/when", WHEN, f"{capital(listed(held))}.", club, name=person
            )
    for president in tables.presidents[::5]:
        year = president.start_year
        if starts[year] == 1 and president.end_year is not None and president.end_year > year:
            followups = (("E quando deixou o cargo?", f"Em {president.end_year}."),)
            yield ask("conversa", f"presidents/{president.order}/talk", TALK, sentence(name(president)), club,
                      followups, year=year)  # fmt: skip


def name(president: President) -> str:
    """The name without its academic or military title."""
    text = president.president
    for title in TITLES:
        text = text.removeprefix(title)
    return text


def term(president: President) -> str:
    """When `president` was in office, in words."""
    if president.end_year is None:
        return f"desde {president.start_year}"
    if president.end_year == president.start_year:
        return f"em {president.start_year}"
    return f"de {president.start_year} a {president.end_year}"
