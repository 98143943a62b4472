"""The report is one page that needs nothing else, and its command trains the same again."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from ui_events import events, sampled, write_run

from farense_qlora.answers.evaluate import STORED, Evaluation, answered, judge
from farense_qlora.answers.perplexity import TokenScores
from farense_qlora.cli.parser import build_parser
from farense_qlora.config import Config
from farense_qlora.data.rows import Row
from farense_qlora.errors import UserError
from farense_qlora.training.events import Skipped, Started
from farense_qlora.ui.report import report, train_command


def page_of(folder: Path, **settings: object) -> str:
    trouble = Skipped(step=9, time=0.0, epoch=0.4, cause="a perda <não> é um número", rows=("a:1",))
    written = [*events()[:-1], sampled(0, "Não sei.", "Em 1980."), trouble, events()[-1]]
    run = write_run(folder / "runs" / "meu", written, **settings)
    return report(run, folder / "out").read_text(encoding="utf-8")


def test_it_is_one_page_that_loads_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', page) and "<script" not in page
    assert "url(" not in page and "@import" not in page
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "relatorio-meu.html"]
    assert "@media print" in page and "prefers-color-scheme: dark" in page


def test_it_says_what_was_set_answered_and_went_wrong(tmp_path: Path) -> None:
    page = page_of(tmp_path, rank=4)
    assert "<p>Não são as do perfil: <b>Rank</b>.</p>" in page
    assert re.search("<td ?>Rank</td><td ?>4</td>", page)
    assert "Não sei." in page and "a perda &lt;não&gt; é um número; linha a:1" in page
    assert "ainda não foi avaliado" in page


def test_what_was_predicted_stands_beside_what_it_took(tmp_path: Path) -> None:
    assert "Previsão e treino" not in page_of(tmp_path / "a")
    started, *rest = events()
    assert isinstance(started, Started)
    told = [replace(started, predicted_gb=0.3, predicted_seconds=0.4), *rest]
    page = report(write_run(tmp_path / "b", told), tmp_path).read_text(encoding="utf-8")
    table = re.search(r"<caption>Previsão e treino.*?</table>", page, re.DOTALL)
    numbers = re.findall(r">([-−]?[\d,]+(?: %)?)<", table[0]) if table else []
    said = [number.replace("−", "-").removesuffix(" %") for number in numbers]
    assert said == ["0,30", "0,25", "20", "0,40", "0,50", "-20"]


@pytest.mark.parametrize(("count", "said"), [(1, "1 linha cortada<"), (2, "2 linhas cortadas<")])
def test_it_says_how_many_rows_were_cut(tmp_path: Path, count: int, said: str) -> None:
    started, *rest = events()
    assert isinstance(started, Started)
    run = write_run(tmp_path / "meu", [replace(started, truncated_rows=count), *rest])
    assert said in report(run, tmp_path).read_text(encoding="utf-8")


def test_a_stored_evaluation_is_shown_beside_the_base_models(tmp_path: Path) -> None:
    run = write_run(tmp_path / "meu", events())
    turns = ({"role": "user", "content": "P?"}, {"role": "assistant", "content": "Sim."})
    row = Row(messages=turns, kind="facto")

    def evaluation(right: int) -> Evaluation:
        given = [judge(row, "Sim." if n < right else "Não.") for n in range(10)]
        return Evaluation(sets=(answered("perguntas", given),), tokens=tokens)

    tokens = TokenScores(
        tokens=300, perplexity=1.25, accuracy=0.9, perplexity_interval=(1.2, 1.3),
        accuracy_interval=(0.85, 0.95), row_losses=(), row_tokens=(),
    )  # fmt: skip
    evaluation(5).save(run.folder, evaluation(1))
    page = report(run, tmp_path / "out").read_text(encoding="utf-8")
    assert "300 tokens: perplexidade 1,25 [1,20; 1,30], tokens certos 90,0 % [85,0; 95,0]" in page
    assert re.search(r"perguntas</td>(<td class=n>[^<]*</td>){5}", page)
    assert "10,0 %</td><td" in page and "um facto" in page
    (run.folder / STORED).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="não se lê"):
        report(run, tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [{}, {"packing": False, "target_modules": ("q_proj", "v_proj"), "learning_rate": 1e-5, "max_steps": 7}],
    ids=["as the profile", "changed"],
)
def test_its_command_has_the_very_config_of_the_run(tmp_path: Path, settings: dict[str, object]) -> None:
    run = write_run(tmp_path / "meu", events(), **settings)
    program, *words = shlex.split(train_command(run))
    given = vars(build_parser().parse_args(words))
    assert program == "farense-qlora"
    assert Config.of(**{name: given[name] for name in given if name in Config.model_fields}) == run.config
