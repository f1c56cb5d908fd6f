"""The cargo that travels between the parts: activations of one trace, scores, and all that one spec gave.

`activations` is what a trace hands over, `scores` what an analysis does, `run` what a whole spec does; `saving` keeps a
run in a folder, and `comparison` holds two against each other. Torch is loaded only when a tensor is touched.
"""

from .activations import Activations
from .comparison import Comparison, compare
from .parts import Expectation, Text, Unstored, ViewRequest
from .run import MissingError, Run
from .scores import Scores

__all__ = ["Activations", "Comparison", "Expectation", "MissingError", "Run", "Scores", "Text", "Unstored", "ViewRequest",
           "compare"]
