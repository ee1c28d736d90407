"""The notebooks in examples/notebooks, with what they printed and drew, as pages of the site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTE = """
!!! note
    This page is `examples/notebooks/{name}`, as `python examples/notebooks/execute.py` left it. The
    suite runs its cells; noise is fresh in every run, so figures differ.

"""


def output(cell_output: dict[str, Any]) -> str:
    """What one cell printed or drew, as Markdown."""
    if "text" in cell_output:
        return f"```text\n{''.join(cell_output['text']).rstrip()}\n```"
    drawn = "".join(cell_output["data"]["image/png"]).replace("\n", "")
    return f'<img alt="What the cell above draws" src="data:image/png;base64,{drawn}">'


def page(path: Path) -> str:
    """A notebook as Markdown."""
    parts: list[str] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            if len(parts) == 1:
                parts.append(NOTE.format(name=path.name))
        else:
            parts.append(f"```python\n{text}\n```")
            parts += [output(one) for one in cell["outputs"]]
    return "\n\n".join(parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        uri = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, uri, content=page(path)))
    return files
