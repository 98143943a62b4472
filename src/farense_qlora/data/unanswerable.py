"""Questions that the tables do not answer, so that a model learns to say so."""

from dataclasses import replace
from pathlib import Path

from .facts import Tables
from .language import Club, article, opponent_name, season_of
from .questions import QUESTIONS, named
from .wordings import UNANSWERABLE, Question, Template, Wordings, read_templates

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
        known = read_templates(path)
        templates = {name: known[name].model_copy(update=refusal) for name in names if name in known}
        entries += [(path, templates, name) for name in templates]

    def ask(entry: tuple[Path, dict[str, Template], str], club: Club, about: str, epoca: str) -> None:
        """Ask the `entry` of `club`, in those wordings alone that say what it is `about`, and not of players
        whose nickname is not known: nobody speaks of the president of «os jogadores do Famalicão»."""
        path, templates, name = entry
        question = Wordings(path, templates, club).ask(name, about, epoca=epoca, taca=CUP)
        players = "" if club.nickname else club.forms["os"].partition(" ")[2]
        prompts, heldout, other = (
            tuple(text for text in texts if about in text and not (players and players in text))
            for texts in (question.prompts, question.heldout, question.other)
        )
        asked.append(replace(question, prompts=prompts, heldout=heldout, other=other))

    met = sorted(tables.opponents, key=lambda opponent: (-opponent.matches, opponent.opponent))
    others = [opponent_name(opponent.display_pt) for opponent in met]
    others = [name for name in others if club.name not in name][:OTHER_CLUBS]
    seasons = [season.season for season in tables.seasons]
    for number, name in enumerate(others if seasons else []):
        for entry in entries[number % 3 :: 3]:
            ask(entry, Club(name, article(name)), name, seasons[(7 * len(asked)) % len(seasons)])
    ours = named(club, tables)
    for number, year in enumerate(YEARS):
        for entry in entries[number % 2 : 6 : 2]:
            ask(entry, ours, season_of(year), season_of(year))
    return asked
