"""Every tutorial, run from top to bottom in its own process: on the shipped model strictly, on another one as it goes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
import warm_kernels
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("file", NOTEBOOKS, ids=[file.stem for file in NOTEBOOKS])
"""The tests of a notebook belong to one process (see schedule.py), which runs it once."""
HEAD = ("setup", "parameters")
SEEING = {"09_images": ("gate", "gate-null")}
"""The tutorials whose model sees images -> that model, and the other one to run them on."""


@pytest.fixture(scope="module")
def kernels():
    """Kernels that see the checkout's package, and that a claim which fails is an error in."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    given = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with warm_kernels.kernels(given) as kind:
        yield kind, {**given, "HOOKLAB_CHECK": "strict"}


def run(file, folder, kernels, *models):
    """The notebook with its outputs, once for each model, one after the other in one kernel; the first time strictly.

    None stands for the notebook's own model. Cells write into `folder`.
    """
    kind, given = kernels
    books = [with_model(nbformat.read(file, as_version=4), model) for model in models]
    cells = []
    for n, book in enumerate(books):
        cells += [*book.cells, nbformat.v4.new_code_cell("import os\nos.environ['HOOKLAB_CHECK'] = ''")]
        for cell in book.cells:
            cell.id += f"-{n}"
    whole = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(whole, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
                            allow_errors=True, kernel_manager_class=kind, startup_timeout=warm_kernels.PATIENCE)
    client.execute(env={**given, "IPYTHONDIR": str(folder / "ipython")})
    return books


def with_model(book, model):
    """A notebook whose parameters name this model; its own for None."""
    for cell in tagged(book, "parameters") if model else []:
        cell.source = f"MODEL = {model!r}"
    return book


def tagged(book, tag):
    return [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]


def texts(cell):
    """What a cell shows as plain text, and what it prints."""
    return "\n".join(str(output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue") or "")
                     for output in cell.get("outputs", []))


def errors(book):
    return [(cell.source[:60], output.ename, output.evalue) for cell in book.cells for output in cell.get("outputs", [])
            if output.output_type == "error"]


@pytest.fixture(scope="module")
def ran(other, kernels, tmp_path_factory):
    """What a tutorial shows on its own model, strictly, and on another one; each is run once."""
    shown = {}

    def get(file):
        if file not in shown:
            second = SEEING[file.stem][1] if file.stem in SEEING else str(other)
            shown[file] = run(file, tmp_path_factory.mktemp(file.stem), kernels, None, second)
        return shown[file]

    return get


@EACH
def test_a_tutorial_runs_and_its_claims_hold(file, ran):
    book, _ = ran(file)
    shown = "\n".join(texts(cell) for cell in book.cells if cell.cell_type == "code")
    assert errors(book) == []
    assert not re.search(r"UsageError|Traceback|✗", shown), shown
    exercises, solutions = tagged(book, "check"), tagged(book, "solution")
    assert len(exercises) == len(solutions) >= 1
    for cell in exercises:
        assert texts(cell).startswith("○"), cell.source
    for cell in solutions:
        assert texts(cell).strip().splitlines()[-1].startswith("✓") or "✓" in texts(cell), (cell.source, texts(cell))
    assert "✓ claim" in shown or re.search(r"^expect ", "\n".join(cell.source for cell in book.cells), re.M)
    assert any("image/png" in output.get("data", {}) or "application/vnd.jupyter.widget-view+json" in output.get("data", {})
               for cell in book.cells for output in cell.get("outputs", [])), "no picture"


@EACH
def test_a_tutorial_is_committed_without_outputs_and_folds_its_solutions(file):
    book = nbformat.read(file, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in tagged(book, "solution"))
    assert [tag for cell in code[:2] for tag in cell.metadata.get("tags", [])] == list(HEAD)
    assert code[1].source.startswith(f'MODEL = "{SEEING.get(file.stem, ("lab",))[0]}"')
    assert re.match(rf"# {file.name[:2]} · ", book.cells[0].source)
    assert "**Goal.**" in book.cells[0].source
    prose = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert prose.count("<details>") == prose.count("</details>") >= 2 * len(tagged(book, "check"))
    for picture in re.findall(r"\]\((?!http)([^)#]+)\)", prose):
        assert (file.parent / picture).is_file(), picture
    assert set(book.metadata) == {"kernelspec", "language_info"}


def test_the_tutorials_are_numbered_from_zero_without_a_gap():
    assert [int(file.name[:2]) for file in NOTEBOOKS] == list(range(len(NOTEBOOKS)))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A folder with a Llama of random weights that has the shipped model's vocabulary."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from hooklab.model.lab import PATH

    folder = tmp_path_factory.mktemp("other")
    tokenizer = AutoTokenizer.from_pretrained(PATH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=160, num_hidden_layers=3,
                             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                             bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    return folder


@EACH
def test_a_tutorial_runs_on_another_model_where_only_its_claims_may_fail(file, ran):
    _, book = ran(file)
    assert [error for error in errors(book) if not error[2].startswith("HookExpectError: does not hold")] == []
    assert "UsageError" not in "\n".join(texts(cell) for cell in book.cells)
