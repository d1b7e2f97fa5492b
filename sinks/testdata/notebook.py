"""Executes the notebook that is named, in the working directory, and counts its plots."""
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=180, kernel_name="python3").execute()
outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
plots = sum("image/png" in o.get("data", {}) for o in outputs)
warnings = [o["text"] for o in outputs if o.get("name") == "stderr"]
print(plots, "plots", warnings)
sys.exit(0 if plots == 3 and not warnings else 1)
