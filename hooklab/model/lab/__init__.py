"""`lab`: the small GPT-2-architecture model that ships inside the package.

Its language is synthetic and its behaviours are known (`words`, `corpus`), it was trained by `train` and is
measured by `evaluate`; the tables are in `weights/README.md`. Importing this module loads neither torch nor
transformers: it only says where the files are.

    >>> from hooklab.model.lab import PATH
    >>> PATH.name
    'weights'
"""

from pathlib import Path

PATH = Path(__file__).parent / "weights"
"""The folder of the weights, the tokenizer and the model card, in the layout `from_pretrained` reads."""
