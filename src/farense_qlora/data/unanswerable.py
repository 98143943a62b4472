"""Questions that the tables do not answer, so that a model learns to say so."""

from dataclasses import replace
from pathlib import Path

from .facts import Tables
from .language import Club, article, opponent_name
from .questions import QUESTIONS
from .wordings import UNANSWERABLE, Question, Wordings, read_templates

# Of each table what is asked of other clubs and of seasons that there never were, which no table answers.
ENTRIES = {
    "seasons": ("position", "points", "goals", "story"),
    "coaches": ("who",),
    "cups": ("out",),
    "club": ("data_fundacao", "estadio", "estadio_capacidade", "alcunha", "cores", "presidente_atual"),
}
CUP = "Taça de Portugal"
OTHER_CLUBS, YEARS = 60, (*range(1880, 1908), *range(2031, 2060))


def unanswerable(tables: Tables, club: Club, folder: Path = QUESTIONS) -> list[Question]:
    """Questions that no table of `club` answers: on other clubs, on seasons before and after all that it has
    played, and on what is no football at all; each has the answer that says so. None without the file that
    has it, in `folder`."""
    file = folder / f"{UNANSWERABLE}.toml"
    if not file.exists():
        return []
    off_topic = read_templates(file)
    asked = [Wordings(file, off_topic, club).ask(name, name) for name in off_topic]
    refusal = {"kind": "sem-resposta", "answer": asked[0].answer, "full": "", "no": "", "followups": ()}
    entries = []
    for table, names in ENTRIES.items():
        path = folder / f"{table}.toml"
        templates = {name: one.model_copy(update=refusal) for name, one in read_templates(path).items()}
        entries += [(path, templates, name) for name in names if name in templates]
    met = sorted(tables.opponents, key=lambda opponent: (-opponent.matches, opponent.opponent))
    others = [opponent_name(opponent.display_pt) for opponent in met]
    others = [name for name in others if club.name not in name][:OTHER_CLUBS]
    seasons = [season.season for season in tables.seasons]
    for number, name in enumerate(others if seasons else []):
        for path, templates, entry in entries[number % 3 :: 3]:
            epoca = seasons[(7 * len(asked)) % len(seasons)]
            theirs = Wordings(path, templates, Club(name, article(name)))
            asked.append(_naming(theirs.ask(entry, name, epoca=epoca, taca=CUP), name))
    for number, year in enumerate(YEARS):
        for path, templates, entry in entries[number % 2 : 6 : 2]:
            epoca = f"{year}-{(year + 1) % 100:02d}"
            ours = Wordings(path, templates, club)
            asked.append(_naming(ours.ask(entry, epoca, epoca=epoca, taca=CUP), epoca))
    return asked


def _naming(question: Question, name: str) -> Question:
    """`question` in those wordings alone that say `name`."""
    prompts, heldout, other = (
        tuple(text for text in texts if name in text)
        for texts in (question.prompts, question.heldout, question.other)
    )
    return replace(question, prompts=prompts, heldout=heldout, other=other)
