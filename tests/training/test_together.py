"""Processes that train together have one model: each its own, if it is the same, or a copy of the first's."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import PEOPLE, build_tiny_model, write_rows
from training.machines import Hosts

from farense_qlora.config import Config
from farense_qlora.data.tokens import Encoded, encode, read_rows
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base
from farense_qlora.training.events import Copied, Started, Stepped, of
from farense_qlora.training.start import start


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> Config:
    rows = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    return Config.of(
        "mini", model=str(shutil.copytree(tiny_model, tmp_path / "modelo")), train_data=rows, val_data=rows,
        rank=4, batch_size=2, epochs=100.0, max_steps=6, eval_every=6, save_every=6, probes=0,
    )  # fmt: skip


def there(tmp_path: Path, body: str) -> str:
    folder = tmp_path / "outro"
    folder.mkdir()
    code = "import sys\nif 'farense_qlora.training.helper' in sys.orig_argv:\n    from pathlib import Path\n"
    code += f"    from farense_qlora.model import download\n    local = download.local_folder\n    {body}\n"
    (folder / "sitecustomize.py").write_text(code)
    return f"export PYTHONPATH={folder} XDG_CACHE_HOME={tmp_path}/cache"


def test_a_model_and_rows_that_are_not_there_are_copied(config: Config, hosts: Hosts, tmp_path: Path) -> None:
    gone = there(
        tmp_path, f"download.local_folder = lambda name: None if '{tmp_path}/modelo' in name else local(name)"
    )
    one = start(config, "um", hosts=hosts("b")).wait()
    other = start(config, "outro", hosts=hosts("b", b=gone)).wait()
    assert [event.loss for event in of(other.events(), Stepped)] == [
        event.loss for event in of(one.events(), Stepped)
    ]
    assert of(other.events(), Copied)[0].hosts == ("b",) and not of(one.events(), Copied)
    (copy,) = (tmp_path / "cache" / "farense_qlora" / "copies").iterdir()
    assert (copy / "config.json").exists()
    before = copy.stat().st_mtime_ns
    again = start(config, "outra-vez", hosts=hosts("b", b=gone)).wait()
    assert copy.stat().st_mtime_ns == before and of(again.events(), Started)[0].hosts == ("este", "b")


def test_another_model_of_the_same_name_is_refused(config: Config, hosts: Hosts, tmp_path: Path) -> None:
    build_tiny_model(tmp_path / "diferente", seed=1)
    other = there(
        tmp_path,
        "download.local_folder = lambda name: "
        f"Path('{tmp_path}/diferente') if 'modelo' in name else local(name)",
    )
    with pytest.raises(UserError, match=r"em «b» não é o mesmo que aqui: apague-o lá"):
        start(config, "outro", hosts=hosts("b", b=other)).wait()


def test_rows_survive_the_journey(config: Config) -> None:
    base = load_base(config)
    rows = encode(read_rows(config.train_data), base.tokenizer, 64)
    some = rows.where(np.array([5, 2, 3]))
    same = Encoded.from_bytes(some.to_bytes())
    assert len(same) == 3 and same.rows() == some.rows() and list(same.lines) == list(some.lines)
    assert len(Encoded.from_bytes(rows.where(np.array([], int)).to_bytes())) == 0
    for one, other in zip(same, some, strict=True):
        assert (one.tokens == other.tokens).all() and (one.supervised == other.supervised).all()
