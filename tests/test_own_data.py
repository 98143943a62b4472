"""Others' rows from file to adapter: every kind trains, and all that follows asks the same rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import Command
from train_here import train_here

from farense_qlora.answers.evaluate import evaluate
from farense_qlora.answers.generate import ask
from farense_qlora.config import Config
from farense_qlora.data.load import load_data
from farense_qlora.exporting.export import export
from farense_qlora.model.adapters import load_adapter
from farense_qlora.model.base import load_base
from farense_qlora.model.download import MINIATURE
from farense_qlora.training.events import Evaluated, Finished, Started
from farense_qlora.training.run import Run

JOBS = ("carteiro", "padeira", "médico", "pintora", "piloto", "juíza", "ator", "cantora", "pastor", "atleta")
PAIRS = [(f"Que faz a pessoa número {i}?", f"É {job}.") for i, job in enumerate(JOBS, 1)]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(separator: str, header: str) -> bytes:
    return "\n".join([header, *(f"{q}{separator}{a}" for q, a in PAIRS)]).encode()


def turns(first: str, second: str, role: str, content: str) -> list[list[dict[str, str]]]:
    return [[{role: first, content: q}, {role: second, content: a}] for q, a in PAIRS]


KINDS: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "messages": (
        "r.jsonl",
        lines([{"messages": m} for m in turns("user", "assistant", "role", "content")]),
        {},
    ),
    "ShareGPT": ("r.json", lines([{"conversations": c} for c in turns("human", "gpt", "from", "value")]), {}),
    "Alpaca": (
        "r.json",
        json.dumps([{"instruction": q, "input": "", "output": a} for q, a in PAIRS]).encode(),
        {},
    ),
    "prompt and completion": ("r.jsonl", lines([{"prompt": q, "completion": a} for q, a in PAIRS]), {}),
    "question and answer": ("r.jsonl", lines([{"question": q, "answer": a} for q, a in PAIRS]), {}),
    "a spreadsheet": ("r.csv", b"\xef\xbb\xbf" + table(";", "Pergunta;Resposta"), {}),
    "tabs in UTF-16": ("r.tsv", table("\t", "pergunta\tresposta").decode().encode("utf-16"), {}),
    "own columns": ("r.csv", table(",", "Q,A"), {"columns": "pergunta=Q,resposta=A"}),
    "Latin-1": ("r.csv", table(",", "question,answer").decode().encode("latin-1"), {"encoding": "latin-1"}),
    "Parquet": ("r.parquet", b"", {}),
    "text": ("r.jsonl", lines([{"text": f"{q} {a}"} for q, a in PAIRS]), {}),
}


def write(folder: Path, kind: str) -> Path:
    name, data, _ = KINDS[kind]
    if name.endswith(".parquet"):
        pa.parquet.write_table(
            pa.Table.from_pylist([{"prompt": q, "completion": a} for q, a in PAIRS]), folder / name
        )
    else:
        (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_trains_the_miniature(kind: str, tmp_path: Path) -> None:
    config = Config.of(
        "mini", train_data=str(write(tmp_path, kind)), batch_size=4, max_steps=2, probes=1, **KINDS[kind][2]
    )
    base = load_base(Config())
    events = list(train_here(config, tmp_path / "run", base))
    started, end = events[0], events[-1]
    assert isinstance(started, Started) and isinstance(end, Finished)
    assert (started.train_rows, started.val_rows, end.best_step) == (9, 1, 2)
    assert "validação: 1 linha do treino" in "\n".join(started.notes)
    assert (tmp_path / "run" / "validation.jsonl").is_file()


def run_of(folder: Path, config: Config) -> Run:
    """A run that was trained here, and not by a worker."""
    run = Run(folder)
    folder.mkdir(parents=True)
    config.write(folder / "config.json")
    with (folder / "events.jsonl").open("w", encoding="utf-8") as log:
        for event in train_here(config, folder):
            log.write(event.to_json() + "\n")
    return run


@pytest.fixture
def skipped(tmp_path: Path, tiny_model: Path) -> Run:
    """A run whose validation has a row that is broken and one that is too long."""
    rows = [{"prompt": q, "completion": a} for q, a in PAIRS]
    (tmp_path / "train.jsonl").write_bytes(lines(rows))
    broken = b'{"prompt": "Quem?", "completion": 3}\n' + lines(
        [{"prompt": "Quem? " * 90, "completion": "Ela."}]
    )
    (tmp_path / "val.jsonl").write_bytes(
        lines(rows[:2]) + broken + lines([{"prompt": "Quem?", "completion": "Ela."}])
    )
    config = Config(
        model=str(tiny_model), train_data=str(tmp_path / "train.jsonl"), val_data=str(tmp_path / "val.jsonl"),
        skip_bad=True, remove_duplicates=False, max_seq_length=128, batch_size=4, max_steps=4,
    )  # fmt: skip
    return run_of(tmp_path / "runs" / "x", config)


def test_what_training_measures_evaluation_asks_and_the_export_verifies_are_the_same_rows(
    skipped: Run, tmp_path: Path
) -> None:
    base = load_base(skipped.config)
    data = load_data(skipped.config, base)
    load_adapter(base.model, skipped.best_adapter)
    found = evaluate(base, data)
    assert [answer.question for answer in found.sets[0].answers] == [PAIRS[0][0], PAIRS[1][0], "Quem?"]
    scores = found.tokens
    assert scores is not None
    best = [event for event in skipped.events() if isinstance(event, Evaluated) and event.best][-1]
    assert scores.perplexity == pytest.approx(pow(2.718281828459045, best.loss), rel=1e-4)
    folder = export(skipped, tmp_path / "out")
    report = json.loads((folder / "verification.json").read_text(encoding="utf-8"))
    assert (report["questions"], report["tokens"]) == (3, scores.tokens)


def test_bare_text_is_evaluated_by_its_perplexity_and_exported(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines([{"text": f"{q} {a}"} for q, a in PAIRS]))
    config = Config(model=str(tiny_model), train_data=str(tmp_path / "t.jsonl"), batch_size=4, max_steps=2)
    run = run_of(tmp_path / "runs" / "x", config)
    base = load_base(config)
    data = load_data(config, base)
    found = evaluate(base, data)
    assert found.sets == () and found.tokens is not None and found.tokens.tokens > 0
    assert "não há perguntas que fazer" in repr(found)
    report = json.loads((export(run, tmp_path / "out") / "verification.json").read_text(encoding="utf-8"))
    assert report["questions"] == 1 and report["passed"]


# What makes the miniature learn ten rows by heart.
BY_HEART = {"batch_size": 5, "epochs": 75, "learning_rate": 3e-4, "eval_every": 150, "max_steps": 150}


def test_an_adapter_that_learnt_nothing_is_never_the_best(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines([{"prompt": q, "completion": a} for q, a in PAIRS]))
    (tmp_path / "val.jsonl").write_bytes(lines([{"prompt": "Que dia é?", "completion": "Hoje é sábado."}]))
    files = {"train_data": str(tmp_path / "train.jsonl"), "val_data": str(tmp_path / "val.jsonl")}
    config = Config.of("mini", **files, **BY_HEART, probes=0)
    events = list(train_here(config, tmp_path / "run"))
    first, last = [event for event in events if isinstance(event, Evaluated)][:2]
    assert first.loss < last.loss and last.best  # it learnt another answer
    end = events[-1]
    assert isinstance(end, Finished) and (end.best_step, end.best_loss) == (150, last.loss)


def test_from_a_spreadsheet_to_an_answer_at_the_command_line(farense: Command, tmp_path: Path) -> None:
    sheet = write(tmp_path, "a spreadsheet")
    told = json.loads(farense("data", "--check", "--train-data", sheet, "--batch-size", 5, "--json").stdout)
    assert told["sentences"][0].endswith("r.csv: 9 linhas") and "«" in told["rows"][0]
    refused = farense("data", "--check", "--train-data", sheet)  # as training does
    assert refused.returncode == 2 and refused.stdout == "" and "batch_size = 16 é maior" in refused.stderr
    settings = [word for name, value in BY_HEART.items() for word in (f"--{name.replace('_', '-')}", value)]
    done = farense("train", "--run", "folha", "--train-data", sheet, "--val-data", sheet, *settings)
    assert done.returncode == 0, done.stderr
    assert farense("ask", PAIRS[3][0], "--run", "folha").stdout.strip() == PAIRS[3][1]


def test_a_base_model_without_a_chat_template_learns_questions_as_text(tmp_path: Path) -> None:
    model = tmp_path / "base"
    shutil.copytree(MINIATURE, model)
    template = (model / "chat_template.jinja").read_text(encoding="utf-8")
    (model / "chat_template.jinja").unlink()
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(lines([{"prompt": q, "completion": a} for q, a in PAIRS]))
    config = Config.of(
        "mini", model=str(model), train_data=str(rows), val_data=str(rows), **BY_HEART, probes=0
    )
    run = run_of(tmp_path / "runs" / "x", config)
    assert "não tem modelo de conversa" in "\n".join(run.events()[0].notes)  # type: ignore[attr-defined]
    base = load_base(config)
    learnt = load_data(config, base).training[0]
    assert base.tokenizer.decode(learnt.tokens.tolist()) == f"{PAIRS[0][0]}\n{PAIRS[0][1]}</s>"
    load_adapter(base.model, run.best_adapter)
    assert sum(ask(base, question) == answer for question, answer in PAIRS) == len(PAIRS)
    export(run, tmp_path / "out", questions=4)
    (tmp_path / "own.jinja").write_text(template, encoding="utf-8")
    own = config.changed(chat_template=str(tmp_path / "own.jinja"))
    given = load_base(own)
    shown = load_data(own, given).training[0].tokens.tolist()
    assert given.tokenizer.decode(shown).startswith(f"<s>[INST] {PAIRS[0][0]}")
