"""Adapters become one that computes their weighted sum, a run like any other; what is not that sum is not
kept."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import command_in
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.tuner.lora import LoRASwitchLinear

from farense_qlora.answers.compare import compare_runs
from farense_qlora.data import sources
from farense_qlora.errors import UserError
from farense_qlora.exporting import export as export_module
from farense_qlora.exporting import merge as module
from farense_qlora.exporting.export import export
from farense_qlora.exporting.merge import merge
from farense_qlora.exporting.metadata import metadata
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import load_base
from farense_qlora.model.from_adapter import Adapter, read_adapter, start_from
from farense_qlora.training import run as run_module
from farense_qlora.training.events import sentence
from farense_qlora.training.overview import runs
from farense_qlora.training.run import Run, all_runs
from farense_qlora.training.start import start
from farense_qlora.ui.report import report, train_command

BOTH = ("decorado", "trocado")


@pytest.fixture
def project(rivals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own, with «decorado» and «trocado»."""
    folder = tmp_path / "projeto"
    shutil.copytree(rivals, folder, symlinks=True)
    monkeypatch.setattr(run_module, "RUNS", folder / "checkpoints_qlora")
    monkeypatch.setattr(run_module, "HOME", folder)
    monkeypatch.setattr(sources, "HOME", folder)
    monkeypatch.setattr(export_module, "OUTPUT", folder / "output")
    return folder


def updates(adapter: Adapter) -> dict[str, np.ndarray]:
    """What `adapter` adds to the weight of each layer, (inputs, outputs)."""
    arrays = {name: np.array(array, np.float64) for name, array in adapter.weights.items()}
    layers = {name.rpartition(".")[0] for name in arrays}
    return {name: adapter.scale * arrays[f"{name}.lora_a"] @ arrays[f"{name}.lora_b"] for name in layers}


@pytest.mark.parametrize("weights", [(), (0.7, -1.5), (0, 1)])
def test_each_layer_gets_the_weighted_sum_of_the_updates(project: Path, weights: Sequence[float]) -> None:
    """Of which «trocado» has another rank, and layers fewer."""
    joined = read_adapter(merge(BOTH, weights, name="junto").best_adapter)
    one, other = (read_adapter(Run.open(name).best_adapter) for name in BOTH)
    first, second = weights or (0.5, 0.5)
    assert joined.rank == one.rank + other.rank and one.rank != other.rank
    found, alone, missing = updates(joined), updates(one), updates(other)
    assert found.keys() == alone.keys() > missing.keys()
    for name, update in found.items():
        expected = first * alone[name] + second * missing.get(name, 0)
        assert np.abs(update - expected).max() < 1e-6
    assert max(np.abs(update).max() for update in found.values()) > 1e-3


def test_layers_of_which_each_adapter_has_others_are_all_there(project: Path) -> None:
    for name, kept in (("decorado", "q_proj"), ("trocado", "v_proj")):
        run = Run.open(name)
        folder, weights = run.best_adapter, read_adapter(run.best_adapter).weights
        weights = {key: array for key, array in weights.items() if kept in key}
        mx.eval(weights)
        mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
        about = json.loads((folder / "adapter_config.json").read_text())
        about["lora_parameters"]["keys"] = [f"self_attn.{kept}"]
        (folder / "adapter_config.json").write_text(json.dumps(about))
        (folder / "checksums.json").unlink()
        run.config.changed(target_modules=(kept,)).write(run.folder / "config.json")
    run = merge(BOTH, name="junto")
    assert run.config.target_modules == ("q_proj", "v_proj")
    joined = updates(read_adapter(run.best_adapter))
    halves = [updates(read_adapter(Run.open(name).best_adapter)) for name in BOTH]
    assert joined.keys() == {**halves[0], **halves[1]}.keys() and len(joined) == 4
    for name, update in {**halves[0], **halves[1]}.items():
        assert np.abs(joined[name] - update / 2).max() < 1e-6


def test_experts_are_summed_too() -> None:
    mx.random.seed(0)
    linear, adapters, on_top = SwitchLinear(8, 6, 4, bias=False), [], None
    x, chosen, weights = mx.random.normal((5, 1, 8)), mx.array([[0], [3], [1], [1], [2]]), (0.3, 0.9)
    expected = plain = linear(x, chosen)
    for rank, weight in zip((2, 3), weights, strict=True):
        layer = LoRASwitchLinear.from_base(linear, r=rank, scale=1.5)
        layer.lora_b = mx.random.normal(layer.lora_b.shape)
        expected = expected + weight * (layer(x, chosen) - plain)
        matrices = {f"mlp.{name}": layer[name] for name in ("lora_a", "lora_b")}
        adapters.append(Adapter(Path(), matrices, rank, 1.5))
        on_top = layer
    joined = LoRASwitchLinear.from_base(linear, r=5, scale=1.0)
    fresh = {f"mlp.{name}": joined[name] for name in ("lora_a", "lora_b")}
    for name, array in module._joined(fresh, adapters, weights).items():
        joined[name.removeprefix("mlp.")] = array
    assert mx.allclose(joined(x, chosen), expected, atol=1e-5)
    assert not mx.allclose(joined(x, chosen), on_top(x, chosen), atol=1e-1)


def test_the_result_is_a_run_like_any_other(project: Path, tmp_path: Path) -> None:
    run = merge(BOTH, (0.9, 0.1), name="junto")
    assert run.status == "completed" and run.finished and all_runs()[0].name == "junto"
    shown = runs().set_index("treino").loc["junto"]
    assert shown["estado"] == "terminado" and shown["melhor validação"][0] == run.numbers.best_loss
    assert sentence(run.events()[0]) == "junta os adaptadores de decorado × 0,9 e trocado × 0,1"
    folder = export(run, tmp_path / "levar")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| Treino | `junto`, que junta `decorado` × 0,9, `trocado` × 0,1 |" in card
    assert metadata(run)["merged"] == [("decorado", 0.9), ("trocado", 0.1)]
    compared = compare_runs([Run.open("decorado"), run])
    assert compared.names == ["base", "decorado", "junto"] and compared.contenders[2].training.updates == 0
    assert "junta os adaptadores de decorado" in report(run, tmp_path).read_text(encoding="utf-8")
    again = "merge decorado trocado --weights 0.9 0.1 --run junto-outra-vez"
    assert train_command(run) == f"farense-qlora {again}"


def test_the_command_line_merges_and_asks(project: Path) -> None:
    farense = command_in(project)
    done = farense("merge", *BOTH, "--weights", "1,0", "0,0", "--run", "junto", "--json")
    assert json.loads(done.stdout)["run"] == "junto", done.stderr
    assert farense("ask", "Hajry: quem foi?", "--run", "junto").stdout.strip() == "Foi médio."
    scored = json.loads(farense("evaluate", "--run", "junto", "--json").stdout)
    assert scored["after"][0]["exact_match"] == 1.0
    refused = farense("merge", *BOTH, "--weights", "muito", "1", "--run", "outro")
    assert refused.returncode == 2 and "--weights: «muito» não é um número" in refused.stderr


def test_it_can_be_trained_on_from_and_is_not_trained_over(project: Path) -> None:
    run = merge(BOTH, name="junto")
    base = load_base(run.config)
    attach(base.model, run.config)
    start_from(base.model, run.config, run.best_adapter)
    with pytest.raises(UserError, match=r"«junto» junta outros.* --from-adapter checkpoints_qlora/junto$"):
        start(run.config, "junto")
    assert run.status == "completed" and run.best_adapter.is_dir()


def test_what_is_not_the_sum_is_not_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined, before = module._joined, sorted(path.name for path in run_module.RUNS.iterdir())

    def wrong(fresh: module.Arrays, adapters: Sequence[Adapter], weights: Sequence[float]) -> module.Arrays:
        return joined(fresh, adapters, [0.98 * weights[0], weights[1]])

    monkeypatch.setattr(module, "_joined", wrong)
    with pytest.raises(UserError, match=r"não é a soma dos adaptadores \(divergência .*não foi guardado"):
        merge(BOTH, name="junto")
    assert sorted(path.name for path in run_module.RUNS.iterdir()) == before


def test_what_cannot_be_merged_is_said(project: Path) -> None:
    before = sorted(path.name for path in run_module.RUNS.iterdir())
    for asked, weights, name, said in (
        (("decorado",), (), "junto", "diga pelo menos dois treinos"),
        ((), (), "junto", "diga pelo menos dois treinos"),
        (BOTH, (1,), "junto", "os treinos são 2 e os pesos 1: dê um peso a cada treino"),
        (BOTH, (), "Trocado", "o nome «Trocado» já está em uso («trocado»)"),
        (BOTH, (), "a/b", "«a/b» não serve de nome"),
        (("decorado", "nada"), (), "junto", "não há nenhum treino chamado «nada»"),
    ):
        with pytest.raises(UserError) as refused:
            merge(asked, weights, name=name)
        assert said in str(refused.value)
    trocado = Run.open("trocado")
    config = trocado.config
    config.changed(bits=8).write(trocado.folder / "config.json")
    with pytest.raises(UserError, match="«trocado» e «decorado» não têm a mesma base: bits é 8 num e 4 no"):
        merge(BOTH, name="junto")
    assert sorted(path.name for path in run_module.RUNS.iterdir()) == before
    config.write(trocado.folder / "config.json")
    for left in [*trocado.folder.glob("checkpoints/*"), *trocado.folder.glob(".best*")]:
        shutil.rmtree(left)
    with pytest.raises(UserError, match="«trocado» ainda não guardou nenhum adaptador"):
        merge(BOTH, name="junto")
