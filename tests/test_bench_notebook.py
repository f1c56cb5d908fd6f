"""The bench in a notebook: its line magic; and what it hands over to MLflow."""

from __future__ import annotations

import sys

import pytest

from hooklab.bench import Bench
from hooklab.errors import RecordError
from hooklab.problems import SpecError


def done(shell, text):
    """What a cell gives."""
    result = shell.run_cell(text)
    result.raise_error()
    return result.result


CELL = """
import math
STEP = {0}
def helper(x):
    return x + STEP
@bench.experiment
def entry(x):
    # a word
    return {{"loss": math.sqrt(helper(x))}}
entry(3)
"""


def test_a_cell_that_is_run_again_keeps_its_current_source_and_the_old_one_is_put_back(shell):
    done(shell, "from hooklab.bench import Bench\nbench = Bench('b')")
    assert done(shell, CELL.format(1)) == {"loss": 2.0}
    done(shell, CELL.format(6))
    done(shell, CELL.format(1).replace("# a word", "# another"))
    bench = shell.user_ns["bench"]
    one, two, three = bench.runs("entry")
    assert one.version == three.version != two.version and "STEP = 6" in two.text and "# a word" in one.source
    put = []
    shell.set_next_input = lambda text, replace=False: put.append((text, replace))
    assert done(shell, f"%hook_bench restore {one.id}") is None
    ((text, replaced),) = put
    assert not replaced
    assert text.startswith("# entry, version") and "import math" in text and "STEP = 1" in text and "def helper" in text
    assert done(shell, text + "\nentry(3)") == {"loss": 2.0}
    assert bench.runs("entry")[-1].version == one.version
    assert bench.restore(two.id)(3) == {"loss": 3.0}
    assert done(shell, f"%hook_bench rerun {two.id}").same


def test_the_commands_show_runs_versions_and_differences(shell, tmp_path):
    done(shell, "from hooklab.bench import Bench\nbench = Bench('b')")
    for step in (1, 6):
        done(shell, CELL.format(step))
    one, two = shell.user_ns["bench"].runs()
    done(shell, "del bench")
    with pytest.raises(SpecError, match="no bench is open"):
        done(shell, "%hook_bench runs")
    assert str(tmp_path) in repr(done(shell, "%hook_bench open b"))
    assert len(done(shell, "%hook_bench runs entry")) == 2 and len(done(shell, "%hook_bench versions")) == 2
    assert "loss" in repr(done(shell, f"%hook_bench show {two.id}"))
    assert "-STEP = 1" in done(shell, f"%hook_bench diff {one.id} {two.id}").source.splitlines()
    view = done(shell, "%hook_bench browse")
    assert len(view.entries) == 2
    view.close()
    assert "%hook_bench restore" in repr(done(shell, "%hook_bench"))


def test_what_is_wrong_with_a_command_is_said(shell):
    for line, said in (("rnus", "did you mean `runs`"), ("diff a", "diff needs RUN and OTHER"),
                       ("runs a b", "one word too many")):
        with pytest.raises(SpecError, match=said):
            done(shell, f"%hook_bench {line}")
    done(shell, "%hook_bench open b")
    with pytest.raises(RecordError, match="there is no run 'x'"):
        done(shell, "%hook_bench show x")


def test_the_magic_leaves_with_the_extension(shell):
    assert "hook_bench" in shell.magics_manager.magics["line"]
    done(shell, "%unload_ext hooklab")
    assert "hook_bench" not in shell.magics_manager.magics["line"] and "BenchMagics" not in shell.magics_manager.registry


def test_mlflow_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)
    with pytest.raises(RecordError, match=r"pip install hooklab\[mlflow\]"):
        Bench(tmp_path / "b").export_mlflow("sqlite:///x.db")


def test_runs_are_copied_to_mlflow_once(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="MLflow is optional")
    monkeypatch.chdir(tmp_path)  # where MLflow puts the files of a local database
    pytest.importorskip("sqlalchemy", reason="a local MLflow database needs it")
    from mlflow.tracking import MlflowClient

    bench = Bench(tmp_path / "b")

    @bench.experiment(seed=4)
    def trained(rate):
        for step in range(3):
            bench.log("loss", 1 / (step + 1), step)
        if rate > 1:
            raise ValueError("too fast")
        return {"end": rate / 2}

    trained(0.5)
    with pytest.raises(ValueError):
        trained(2.0)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    ids = bench.export_mlflow(uri, "mine")
    assert len(ids) == 2 and bench.export_mlflow(uri, "mine") == []
    client = MlflowClient(tracking_uri=uri)
    one, two = (client.get_run(ident) for ident in ids)
    assert one.data.params == {"rate": "0.5", "seed": "4"} and one.data.metrics == {"loss": 1 / 3, "end": 0.25}
    assert [(m.step, m.value) for m in client.get_metric_history(ids[0], "loss")] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert (one.info.status, two.info.status) == ("FINISHED", "FAILED") and "too fast" in two.data.tags["hooklab.error"]
    assert one.data.tags["hooklab.version"] == bench.runs()[0].version
    files = {file.path for file in client.list_artifacts(ids[0])}
    assert files == {"source.py", "values"}
