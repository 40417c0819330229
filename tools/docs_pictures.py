"""Draw the pictures of the docs: run the notebook and the MAE example as they stand, and keep what they draw.

``python tools/docs_pictures.py`` takes some minutes on a CPU, downloads nothing, and writes ``docs/assets/*.png``.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from docs_pages import DOCS, NOTEBOOK, code_cells

MAE = NOTEBOOK.with_name("mae.py")


def main() -> None:
    """Run both in a temporary folder and copy their pictures."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names: dict[str, object] = {"__name__": "__main__"}
        for code in code_cells(NOTEBOOK):
            exec(compile(code, NOTEBOOK.name, "exec"), names)
        runpy.run_path(str(MAE))["main"](max_steps=460)
        for picture in Path(folder).glob("*.png"):
            shutil.copy(picture, DOCS / "assets" / picture.name)


if __name__ == "__main__":
    main()
