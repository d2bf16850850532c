"""The notebook says what its script says, and carries nothing of the machine it was made on."""

from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "notebooks"


def test_the_notebook_is_its_script() -> None:
    script, notebook = (jupytext.read(FOLDER / f"analysis.{kind}") for kind in ("py", "ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in found.cells] for found in (script, notebook)]
    assert len(cells[0]) > 20
    assert cells[0] == cells[1], "write it again: jupytext --to notebook configs/notebooks/analysis.py"


def test_it_is_a_valid_notebook_without_outputs() -> None:
    notebook = nbformat.read(FOLDER / "analysis.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
