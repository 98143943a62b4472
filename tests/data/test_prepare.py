"""The data files: reproducible, of the promised size, and without a way from one split into another."""

import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from near import near_duplicates

from farense_qlora.data import prepare as module
from farense_qlora.data.facts import read_tables
from farense_qlora.data.prepare import Prepared, prepare, prompt, split
from farense_qlora.data.rows import Row
from farense_qlora.data.tokens import read_rows
from farense_qlora.errors import UserError

DATA = Path(__file__).parents[2] / "data"
FILES = {"train_data.jsonl": "train", "val_data.jsonl": "validation", "unseen_facts.jsonl": "unseen",
         "other_words.jsonl": "other", "unanswerable.jsonl": "unanswerable"}  # fmt: skip


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return split(read_tables(DATA / "facts"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The facts on presidents and coaches alone: quick to prepare."""
    folder = tmp_path_factory.mktemp("few") / "facts"
    shutil.copytree(DATA / "facts", folder)
    for table in ("seasons", "phases", "cups", "honours", "opponents"):
        file = folder / f"{table}.csv"
        file.write_text(file.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    return folder


def test_the_committed_files_are_what_prepare_writes(tmp_path: Path) -> None:
    written = prepare(DATA / "facts", tmp_path)
    for name, part in FILES.items():
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), f"farense-qlora prepare: {name}"
        assert read_rows(tmp_path / name) == getattr(written, part)


def test_the_committed_files_count_as_its_own(tmp_path: Path) -> None:
    for file in DATA.glob("*.json*"):
        shutil.copy(file, tmp_path)
    assert not prepare(DATA / "facts", tmp_path, seed=1).kept
    assert (tmp_path / "train_data.jsonl").read_bytes() != (DATA / "train_data.jsonl").read_bytes()
    assert not prepare(DATA / "facts", tmp_path).kept
    for name in (*FILES, "prepared.json"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name


@pytest.mark.parametrize("name", FILES)
def test_of_files_among_which_one_is_a_persons_none_is_written(few: Path, tmp_path: Path, name: str) -> None:
    prepare(few, tmp_path)
    with open(tmp_path / name, "a", encoding="utf-8") as file:
        file.write('{"prompt": "Que faz Ana?", "completion": "Ana é pintora."}\n')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = prepare(few, tmp_path, seed=1)
    assert kept.kept == (tmp_path / name,)
    assert f"há linhas suas em {name}: ficam como estão" in str(kept)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_counts_as_a_persons_unless_the_fingerprints_say_otherwise(few: Path, tmp_path: Path) -> None:
    mine = tmp_path / "train_data.jsonl"
    mine.write_text("{}\n", encoding="utf-8")
    for fingerprints in (None, "estragado", "3", "[]"):
        if fingerprints:
            (tmp_path / "prepared.json").write_text(fingerprints, encoding="utf-8")
        assert prepare(few, tmp_path).kept == (mine,)
    assert mine.read_text(encoding="utf-8") == "{}\n"
    assert not (tmp_path / "val_data.jsonl").exists()


def test_a_link_that_leads_nowhere_now_is_not_written_over(few: Path, tmp_path: Path) -> None:
    (tmp_path / "train_data.jsonl").symlink_to(tmp_path / "disco" / "linhas.jsonl")
    with pytest.raises(UserError, match=r"não consigo ler .*train_data\.jsonl: não existe"):
        prepare(few, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train_data.jsonl"]


def test_files_that_are_what_it_would_write_are_no_obstacle(tmp_path: Path) -> None:
    for name in FILES:
        shutil.copy(DATA / name, tmp_path)
    assert not prepare(DATA / "facts", tmp_path).kept
    assert (tmp_path / "prepared.json").read_bytes() == (DATA / "prepared.json").read_bytes()


def test_tables_too_small_to_hold_anything_out_are_all_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ("RICH_SEASONS", "POOR_SEASONS", "COACHES", "PRESIDENTS", "OPPONENTS")
    for size in sizes:
        monkeypatch.setattr(module, size, 0)
    everything = split(read_tables(DATA / "facts"))
    assert len(everything.train) > 2500 and len(everything.validation) > 250 and not everything.unseen


def test_another_seed_gives_another_split(prepared: Prepared) -> None:
    other = split(read_tables(DATA / "facts"), seed=1)
    assert [prompt(row) for row in other.unseen] != [prompt(row) for row in prepared.unseen]


def test_sizes(prepared: Prepared) -> None:
    assert 4500 <= len(prepared.train) <= 7000
    assert 250 <= len(prepared.validation) <= 290
    assert 50 <= len(prepared.unseen) <= 70


def test_no_exact_or_near_duplicate_across_the_splits(prepared: Prepared) -> None:
    splits = (prepared.train, prepared.validation, prepared.unseen)
    train, validation, unseen = ([prompt(row) for row in rows] for rows in splits)
    assert near_duplicates(train, validation) == []
    assert near_duplicates(train + validation, unseen) == []


def test_a_training_prompt_occurs_once_and_so_has_one_answer(prepared: Prepared) -> None:
    assert max(Counter(map(prompt, prepared.train)).values()) == 1


def test_validation_asks_facts_that_are_taught_in_wordings_that_are_not(prepared: Prepared) -> None:
    taught = Counter((row.fact, row.kind) for row in prepared.train)
    assert all(taught[row.fact, row.kind] >= 4 for row in prepared.validation)
    answers = {(row.fact, row.kind): row.messages[1] for row in prepared.train}
    assert all(answers[row.fact, row.kind] == row.messages[1] for row in prepared.validation)
    assert not {wording(row) for row in prepared.train} & {wording(row) for row in prepared.validation}


def test_what_has_no_answer_says_so_and_evaluation_asks_it_of_others(prepared: Prepared) -> None:
    refused = [row for row in prepared.train if row.kind == "sem-resposta"]
    answers = {row.messages[1]["content"] for row in refused + prepared.unanswerable}
    assert len(answers) == 1 and answers.pop().startswith("Não sei")
    assert 0.05 < len(refused) / len(prepared.train) < 0.15
    assert 70 <= len(prepared.unanswerable) <= 90
    in_both = {row.fact for row in refused} & {row.fact for row in prepared.unanswerable}
    assert in_both == {"unanswerable/fora_do_assunto/fora_do_assunto"}  # other questions are off the subject
    assert (
        near_duplicates(
            [prompt(row) for row in prepared.train], [prompt(row) for row in prepared.unanswerable]
        )
        == []
    )
    known = {season.season for season in read_tables(DATA / "facts").seasons}
    for row in refused + prepared.unanswerable:
        ours = re.search(r"\d{4}-\d\d", prompt(row))
        assert not ("Farense" in prompt(row) and ours and ours[0] in known), prompt(row)
        # Ours have a nickname, of which theirs would be told apart; of others it is not known.
        assert not re.search(r"jogadores d[oa] [A-Z]", prompt(row)), prompt(row)


def test_other_words_are_of_facts_that_are_taught_and_of_no_training_wording(prepared: Prepared) -> None:
    train = [prompt(row) for row in prepared.train]
    asked = [prompt(row) for row in prepared.other]
    assert 120 <= len(asked) <= 160 and near_duplicates(train, asked) == []
    assert {row.fact for row in prepared.other} <= {row.fact for row in prepared.train}
    assert not {wording(row) for row in prepared.other} & {
        wording(row) for row in prepared.train + prepared.validation
    }


def wording(row: Row) -> str:
    """The prompt without its numbers and names."""
    return re.sub(r"\d[\d-]*|\b[A-ZÀ-Ý][\w-]*( (d[aeo]s? )?[A-ZÀ-Ý][\w-]*)*", "_", prompt(row))


def test_validation_covers_every_table_and_kind(prepared: Prepared) -> None:
    def groups(rows: list[Row]) -> set[tuple[str, str]]:
        return {(row.table, row.kind) for row in rows}

    answered = [row for row in prepared.train if row.kind != "sem-resposta"]
    assert groups(prepared.validation) == groups(prepared.other) == groups(answered)


def test_nothing_is_taught_of_an_unseen_fact(prepared: Prepared) -> None:
    """Neither the fact itself nor, with whatever it is about, any other: its season or name never occurs."""
    taught = defaultdict(list)
    for row in prepared.train + prepared.validation:
        taught[row.table].append("\n".join(message["content"] for message in row.messages))
    everything = "\n".join(text for texts in taught.values() for text in texts)
    facts = {row.fact for row in prepared.train + prepared.validation}
    assert not facts & {row.fact for row in prepared.unseen}
    for row in prepared.unseen:
        text = " ".join(message["content"] for message in row.messages)
        if row.table in ("seasons", "phases", "cups"):
            season = re.search(r"\d{4}-\d\d", text)
            assert season and season.group() not in everything, text
        if row.table == "presidents":
            who = row.fact.endswith("who")
            name = row.messages[1]["content"].rstrip(".") if who else row.fact.split("/")[1]
            assert name not in everything, text


def test_unseen_facts_have_many_possible_answers(prepared: Prepared) -> None:
    assert {row.kind for row in prepared.unseen} == {"facto"}
    assert not any(row.messages[1]["content"].startswith(("Sim", "Não")) for row in prepared.unseen)
    common = Counter(row.messages[1]["content"] for row in prepared.train).most_common(1)[0][0]
    assert sum(row.messages[1]["content"] == common for row in prepared.unseen) <= 2


def test_near_duplicates_differ_in_wording_and_not_in_what_is_asked() -> None:
    def row(text: str) -> Row:
        return Row(messages=({"role": "user", "content": text},))

    asked = [row("Em que lugar ficou o Farense na época de 1994-95?")]
    same, other_season, other_words = (
        row("em que lugar ficou o Farense, na época de 1994-95"),
        row("Em que lugar ficou o Farense na época de 1995-96?"),
        row("Como se classificou o Farense na temporada de 1994-95?"),
    )
    kept, removed = module._distinct([same, other_season, other_words, other_season], asked)
    assert kept == [other_season, other_words]
    assert removed == [prompt(same), prompt(other_season)]


def test_tables_that_ask_nothing_do_not_empty_the_training_data(tmp_path: Path) -> None:
    facts = Path(shutil.copytree(DATA / "facts", tmp_path / "facts"))
    for table in facts.glob("*.csv"):
        table.write_text(table.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    for name in (*FILES, "prepared.json"):
        shutil.copy(DATA / name, tmp_path)
    with pytest.raises(UserError, match="não dão perguntas para treinar, e nada foi escrito"):
        prepare(facts, tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_where_no_name_can_be_held_out_everything_is_taught(tmp_path: Path) -> None:
    facts = Path(shutil.copytree(DATA / "facts", tmp_path / "facts"))
    for table in facts.glob("*.csv"):
        lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
        table.write_text("".join(lines[: 2 if table.stem == "seasons" else 1]), encoding="utf-8")
    written = prepare(facts, tmp_path / "out")
    asked = [row for row in written.train if row.kind != "sem-resposta"]
    assert len({row.fact for row in asked}) == 1 and len(asked) >= 8 and not written.unseen


def test_the_wordings_beside_the_facts_are_the_ones_used(tmp_path: Path) -> None:
    facts = Path(shutil.copytree(DATA / "facts", tmp_path / "facts"))
    shutil.copytree(DATA / "questions", tmp_path / "questions")
    file = tmp_path / "questions" / "seasons.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("Em que lugar ficou", "Em que posto ficou"), encoding="utf-8")
    written = prepare(facts, tmp_path)
    assert any(prompt(row).startswith("Em que posto ficou o Farense") for row in written.train)
    assert not any(prompt(row).startswith("Em que lugar ficou o Farense") for row in written.train)
