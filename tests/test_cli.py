"""The command line does the whole job, speaks Portuguese, and gives programs one JSON object."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import FARENSE, Command, command_in
from tiny import PEOPLE, write_rows
from ui_events import events, write_run

from farense_qlora.cli import main
from farense_qlora.cli.commands import given
from farense_qlora.cli.parser import build_parser
from farense_qlora.cli.progress import follow, outcome
from farense_qlora.config import HOME, Config
from farense_qlora.exporting.metadata import metadata, model_card
from farense_qlora.training.events import Evaluated, Finished, Saved
from farense_qlora.training.run import Run
from farense_qlora.ui.report import report

QUESTION, ANSWER = "Hajry: quem foi?", "Foi médio."
COMMANDS = [
    [],
    ["prepare"],
    ["train"],
    ["stop"],
    ["fit"],
    ["doctor"],
    ["runs"],
    ["monitor"],
    ["track"],
    ["report"],
    ["evaluate"],
    ["compare"],
    ["ask"],
    ["chat"],
    ["serve"],
    ["export"],
    ["merge"],
]
ENGLISH = re.compile(r"\b(usage|options|show|help message|arguments?|error|expected|default|choose|the)\b")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "(nenhum)")
def test_help_is_in_portuguese(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    text = re.sub(r"--?[\w-]+|«[^»]*»", "", capsys.readouterr().out)
    assert done.value.code == 0
    assert text.startswith("uso: farense")
    assert not ENGLISH.findall(text)


def test_the_command_loads_no_pytorch() -> None:
    """It would cost a computer of 8 GB 180 MB."""
    then = FARENSE[-1].replace("sys.exit(main())", "main(); import mlx_lm; print(sys.modules['torch'])")
    said = subprocess.run([*FARENSE[:-1], then, "runs"], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "None"


def test_ctrl_c_says_that_it_interrupted(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    assert main(["fit", "--model", str(tiny_model)]) == 130
    assert capsys.readouterr().err == "interrompido\n"


def test_progress_forgets_what_a_crash_undid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = [event for event in events() if not isinstance(event, Evaluated | Saved)]
    follow(write_run(tmp_path / "retomado", [*events()[:40], *again]))
    undone, last = capsys.readouterr().err.rsplit("60/60", 1)
    assert "validação" in undone and "perda" in last and "validação" not in last


def test_a_run_that_had_ended_took_as_long_as_it_took(tmp_path: Path) -> None:
    ended = [event for event in events() if not isinstance(event, Evaluated)]
    run = write_run(
        tmp_path / "acabado",
        [*ended, Finished(step=60, time=101.0, reason="completed", best_step=60, best_loss=0.5, seconds=0.0)],
    )
    (run.folder / "best").mkdir()
    result, said = outcome(run)
    assert result["seconds"] == 30 and "60 atualizações em 0 min 30 s" in said


def test_a_decimal_comma_is_taken_as_it_is_printed() -> None:
    args = build_parser().parse_args(["train", "--learning-rate", "0,0003", "--epochs", "2,5"])
    config = Config.of("mini", learning_rate=args.learning_rate, epochs=args.epochs)
    assert (config.learning_rate, config.epochs) == (0.0003, 2.5)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["train", "--learning-rat", "1"], "--learning-rat 1; quis dizer --learning-rate? (ajuda: "),
        (["train", "--lr", "1"], "--lr 1; quis dizer --learning-rate?"),
        (["train", "--rnk=8"], "--rnk=8; quis dizer --rank? (ajuda: farense-qlora train --help)"),
        (["ask", "x", "--xpto"], "argumento desconhecido: --xpto (ajuda: farense-qlora ask --help)"),
        (["--xpto"], "argumento desconhecido: --xpto (ajuda: farense-qlora --help)"),
    ],
)
def test_an_unknown_flag_is_told_by_its_command_with_the_nearest(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_every_setting_is_a_flag_of_train() -> None:
    values = {
        "bits": "16",
        "grad_checkpoint": None,
        "packing": None,
        "skip_bad": None,
        "remove_duplicates": None,
        "encoding": "latin-1",
        "target_modules": "q_proj",
        "profile": "mistral-7b",
    }
    for name in Config.model_fields:
        flag, value = f"--{name.replace('_', '-')}", values.get(name, "1")
        args = build_parser().parse_args(["train", flag, *([value] if value else [])])
        assert hasattr(args, name), name


def test_help_is_instant_because_nothing_heavy_is_imported() -> None:
    code = "import sys; from farense_qlora.cli import build_parser; build_parser(); print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"mlx", "mlx_lm", "numpy", "pandas", "transformers", "matplotlib"} & set(imported.split())


def test_a_run_goes_on_from_the_best_adapter_of_another_and_says_so(
    farense: Command, trained: Path, home: Path, tiny_model: Path
) -> None:
    asked = ("train", "--run", "dali", "--model", tiny_model, "--batch-size", 8, "--max-steps", 1)
    done = farense(*asked, "--from-adapter", "checkpoints_qlora/decorado")
    assert "partiu de checkpoints_qlora/decorado" in done.stderr
    run = Run(home / "checkpoints_qlora" / "dali")
    assert run.config.from_adapter == "checkpoints_qlora/decorado"
    first = next(event for event in run.events() if isinstance(event, Evaluated))
    before = Run(trained).events()[-1]
    assert isinstance(before, Finished) and first.loss == before.best_loss
    page = report(run, home / "output").read_text(encoding="utf-8")
    assert "partiu de checkpoints_qlora/decorado" in page
    figures = dict.fromkeys(("questions", "kl", "kl_base", "kl_packed", "top1", "same_answers"), 1)
    card = model_card(metadata(run), {"consumer": "mlx-lm", **figures}, home)
    assert "| Partiu de | `checkpoints_qlora/decorado` |" in card
    plain = model_card(metadata(Run(trained)), {"consumer": "mlx-lm", **figures}, home)
    assert "Partiu de" not in plain

    refused = farense(
        *asked[:2], "outro", *asked[3:], "--from-adapter", "checkpoints_qlora/decorado", "--rank", 8
    )
    assert (
        refused.returncode == 2
        and refused.stderr.endswith("para partir dele use --rank 32\n")
        and "decorado/best tem" in refused.stderr
    )


def test_prepare_counts_what_it_wrote(farense: Command, tmp_path: Path) -> None:
    facts = Path(__file__).parents[1] / "data" / "facts"
    said = json.loads(farense("prepare", "--facts", facts, "--to", tmp_path, "--json").stdout)
    assert said["status"] == "ok"
    for part, name in (("train", "train_data"), ("validation", "val_data"), ("unseen", "unseen_facts")):
        lines = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert said[part] == len(lines) > 0


def test_prepare_writes_over_no_rows_but_its_own(farense: Command, tmp_path: Path) -> None:
    mine = write_rows(tmp_path / "val_data.jsonl", PEOPLE)
    before = mine.read_bytes()
    facts = Path(__file__).parents[1] / "data" / "facts"
    done = farense("prepare", "--facts", facts, "--to", tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"erro: {mine} tem linhas que não foram escritas") and "--to" in done.stderr
    assert list(tmp_path.iterdir()) == [mine] and mine.read_bytes() == before


def test_train_draws_progress_and_ends_with_one_line(farense: Command, tiny_model: Path) -> None:
    asked = ("train", "--run", "curto", "--model", tiny_model, "--batch-size", 8, "--max-steps", 2)
    done = farense(*asked)
    assert re.fullmatch(
        r"treino «curto» terminado \(2 atualizações em 0 min \d\d s\); melhor perda de validação \d,\d{4} "
        r"\(passo \d\); adaptador em .*best\n",
        done.stdout,
    )
    assert "\r" not in done.stderr  # a file
    assert re.search(r"perda \d,\d{3}, validação \d,\d{3}, [\d\u202f]+ tokens/s", done.stderr)
    for again in (farense(*asked), farense("train", "--run", "curto", "--resume")):
        assert (again.stdout, again.stderr) == (f"já tinha acabado: {done.stdout}", "")


def test_ask_answers_from_the_newest_run(farense: Command, trained: Path) -> None:
    done = farense("ask", QUESTION, "--run", "decorado")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ANSWER}\n", "")


def test_a_question_without_quotation_marks_is_one_question(farense: Command, trained: Path) -> None:
    done = farense("ask", "Hassan:", "quem", "foi?", "--run", "decorado")
    assert (done.returncode, done.stdout.strip()) == (0, "Foi avançado."), done.stderr


def test_who_reads_only_the_beginning_hears_of_no_error(home: Path, trained: Path) -> None:
    with subprocess.Popen(
        [*FARENSE, "runs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FARENSE_HOME": str(home)},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 0 and process.stderr.read() == b""


def test_ask_json_is_one_object_for_back_ends(farense: Command, trained: Path) -> None:
    done = farense("ask", QUESTION, "--run", "decorado", "--json")
    assert json.loads(done.stdout) == {"prompt": QUESTION, "response": ANSWER, "status": "ok"}


def test_ask_json_says_what_went_wrong(farense: Command, home: Path) -> None:
    done = farense("ask", "Olá?", "--run", "nenhum", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 2
    assert (said["prompt"], said["response"], said["status"]) == ("Olá?", "", "error")
    assert "«nenhum»" in said["error"]


def test_an_export_takes_the_place_of_another_only_when_told_and_of_nothing_else(
    farense: Command, trained: Path, home: Path
) -> None:
    mine = home / "output" / "decorado-mlx" / "notas.txt"
    mine.parent.mkdir(parents=True)
    mine.touch()
    assert farense("export", "--run", "decorado", "--replace").returncode == 2 and mine.exists()
    (mine.parent / "metadata.json").write_text('{"run": "outro", "format": "mlx"}', encoding="utf-8")
    refused = farense("export", "--run", "decorado")
    assert refused.returncode == 2 and "--replace" in refused.stderr and mine.exists()
    done = farense("export", "--run", "decorado", "--replace", "--json")
    (written,) = json.loads(done.stdout)["exports"]
    assert written["folder"] == str(mine.parent) and not mine.exists()
    assert farense("ask", QUESTION, "--adapter", home / "output" / "latest").stdout == f"{ANSWER}\n"


def test_an_export_is_asked_without_its_run(farense: Command, trained: Path, tmp_path: Path) -> None:
    done = farense(
        "export", "--run", "decorado", "--to", tmp_path / "levar", "--format", "mlx", "fused", "--json"
    )
    said = json.loads(done.stdout)
    assert (said["run"], said["status"]) == ("decorado", "ok")
    assert [one["folder"] for one in said["exports"]] == [
        str(tmp_path / "levar" / name) for name in ("mlx", "fused")
    ]
    assert all(one["verification"]["passed"] for one in said["exports"])
    assert farense("ask", QUESTION, "--adapter", tmp_path / "levar" / "mlx").stdout == f"{ANSWER}\n"


def test_evaluate_measures_base_and_adapter_on_every_set(farense: Command, trained: Path) -> None:
    result = json.loads(farense("evaluate", "--run", "decorado", "--base", "--json").stdout)
    known, careless, unseen = result["after"]
    assert (known["count"], known["exact_match"], len(known["answers"])) == (len(PEOPLE), 1.0, len(PEOPLE))
    assert careless["count"] == len(PEOPLE)
    assert (unseen["count"], unseen["exact_match"]) == (2, 0.0)
    assert not any(answer["exact"] for answer in unseen["answers"])
    assert 1 < result["tokens"]["perplexity"] < 2
    stored = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    assert stored == {name: result[name] for name in ("tokens", "before", "after")}
    again = json.loads(farense("evaluate", "--run", "decorado", "--base", "--json").stdout)
    assert again == result
    assert result["before"][0]["exact_match"] == 0.0


def test_evaluate_prints_a_table_and_wrong_answers(farense: Command, trained: Path, tmp_path: Path) -> None:
    row = {"prompt": QUESTION, "completion": "Foi enfermeiro."}
    (tmp_path / "outras.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    done = farense("evaluate", "--run", "decorado", "--data", tmp_path / "outras.jsonl")
    assert re.search(r"outras\.jsonl +1 +0,0 % \[0,0; 79,3\] +50,0 %", done.stdout)
    assert f"certa: Foi enfermeiro.\ndada:  {ANSWER}" in done.stdout
    (tmp_path / "outras.csv").write_text(f"pergunta;resposta\n{QUESTION};{ANSWER}\n", encoding="utf-8")
    sheet = farense("evaluate", "--run", "decorado", "--data", tmp_path / "outras.csv").stdout
    assert re.search(r"outras\.csv +1 +100,0 %", sheet)
    assert "num ficheiro como os de treino" in " ".join(farense("evaluate", "--help").stdout.split())


def test_runs_and_monitor_tell_the_same_of_a_run(farense: Command, trained: Path) -> None:
    rows = {row["run"]: row for row in json.loads(farense("runs", "--json").stdout)["runs"]}
    now = json.loads(farense("monitor", "--run", "decorado", "--json").stdout)
    row = rows["decorado"]
    assert (now.pop("run_status"), now.pop("status"), row.pop("status")) == ("completed", "ok", "completed")
    assert now == row
    assert row["step"] == row["total_steps"] == 80 and row["differs"]["epochs"] == 80
    table = farense("runs").stdout
    assert re.search(r"^decorado +terminado +mini, .* 80 / 80 +\d,\d{3} \(passo \d+\)", table, re.MULTILINE)
    shown = farense("monitor", "--run", "decorado", "--once")
    assert "passo: 80 / 80" in shown.stdout and "\x1b" not in shown.stdout and shown.returncode == 0


def test_a_file_that_is_nowhere_is_named_from_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "--train-data", "nada.jsonl"]) == 2
    assert f"não encontro o ficheiro {tmp_path / 'nada.jsonl'}" in capsys.readouterr().err


def test_a_path_is_of_where_the_user_stands_before_it_is_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = build_parser().parse_args(["train", "--train-data", "data/portugues.jsonl"])
    monkeypatch.chdir(HOME)
    assert given(args)["train_data"] == "data/portugues.jsonl"
    monkeypatch.chdir(tmp_path)
    assert given(args)["train_data"] == "data/portugues.jsonl"
    (tmp_path / "data").mkdir()
    mine = write_rows(tmp_path / "data" / "portugues.jsonl", PEOPLE)
    assert given(args)["train_data"] == str(mine)


def test_report_writes_one_page(farense: Command, trained: Path, tmp_path: Path) -> None:
    said = json.loads(farense("report", "--run", "decorado", "--to", tmp_path, "--json").stdout)
    assert said == {"run": "decorado", "file": str(tmp_path / "relatorio-decorado.html"), "status": "ok"}
    assert "80 / 80" in Path(said["file"]).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [["monitor", "--once"], ["report"]], ids=lambda command: command[0])
def test_a_run_that_is_not_there_is_named(farense: Command, command: list[str]) -> None:
    done = farense(*command, "--run", "nenhum")
    assert (done.returncode, done.stdout) == (2, "") and "«nenhum»" in done.stderr


def test_an_interrupted_training_is_saved(home: Path, tiny_model: Path) -> None:
    run = home / "checkpoints_qlora" / "parado"
    events = run / "events.jsonl"
    arguments = ["train", "--run", run.name, "--model", tiny_model, "--epochs", "1000", "--batch-size", "8"]
    with subprocess.Popen(
        [*FARENSE, *arguments],
        env={**os.environ, "FARENSE_HOME": str(home)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 60
        while not (events.exists() and '"Stepped"' in events.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (130, False)
    assert "parado a pedido" in out
    assert list((run / "checkpoints").glob("step-*/adapters.safetensors"))


def test_where_nothing_trains_there_is_nothing_to_stop(tmp_path: Path) -> None:
    done = command_in(tmp_path)("stop")
    assert (done.returncode, done.stderr) == (2, "erro: não há nenhum treino a decorrer\n")


def test_a_run_is_listed_stopped_and_gone_on_with(farense: Command, home: Path, tiny_model: Path) -> None:
    settings = ["--run", "longo", "--model", tiny_model, "--batch-size", "8", "--epochs", "1000"]
    training = subprocess.Popen(
        [*FARENSE, "train", *map(str, settings)],
        env={**os.environ, "FARENSE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    events = home / "checkpoints_qlora" / "longo" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and '"Stepped"' in events.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert re.search(r"longo +a decorrer .* \d+ / 1000", farense("runs").stdout)
    assert farense("stop", "--run", "longo").stdout == "treino «longo» parado\n"
    assert training.wait(timeout=60) == 0
    rows = {row["run"]: row for row in json.loads(farense("runs", "--json").stdout)["runs"]}
    assert rows["longo"]["status"] == "stopped" and rows["longo"]["step"] >= 1
    assert "não está a decorrer" in farense("stop", "--run", "longo").stderr

    other = farense("train", *settings, "--rank", "4", "--resume", "--max-steps", rows["longo"]["step"] + 2)
    assert other.returncode == 2 and "--accept-changes" in other.stderr
    limit = ["--max-steps", rows["longo"]["step"] + 2, "--accept-changes"]
    assert farense("train", *settings, "--resume", *limit).returncode == 0
    rows = {row["run"]: row for row in json.loads(farense("runs", "--json").stdout)["runs"]}
    assert (rows["longo"]["status"], rows["longo"]["step"]) == ("completed", limit[1])


def test_fit_prints_what_was_measured(farense: Command, tiny_model: Path) -> None:
    done = farense("fit", "--model", tiny_model, "--batch-size", 4)
    assert re.fullmatch(
        r"✓ como pediu: cabe, \d,\d\d GB de \d+,\d\d; \d,\d\d s por atualização\npode treinar assim\n",
        done.stdout,
    )
