"""Dictionaries of features: kinds of sparse autoencoders, their files, their training, and how a site is sent through one.

In: activations [… d_model] of a site. Out: features [… feature], and back. A dictionary is an `SAE`, or any object with
`encode(x) -> features` and `decode(features) -> x`; `attach` opens what the language's `sae` statement names.

    activations   what makes features: ReLU, TopK, BatchTopK, JumpReLU, Gated
    autoencoder   SAE: encode, decode, prune
    dictionary    Dictionary, the plain ReLU one, and Attached, an object of the user's
    files         save_sae; layouts: what others stored; opening: attach, load_sae, splice
    registry      SAEs, those of a model by site; omit_dead
    stats         FeatureStats, over a stream
    trainer       train_sae; recipe: its settings, losses, checkpoint
"""

from .activations import ACTIVATIONS, Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from .autoencoder import SAE, Pass, Sparse, sparse
from .dictionary import Attached, Dictionary
from .files import save_sae
from .layouts import from_saelens, read_openai, read_saelens
from .opening import attach, load_sae, splice
from .recipe import Recipe
from .registry import SAEs, omit_dead
from .stats import FeatureStats
from .trainer import METRICS, Training, train_sae

__all__ = ["ACTIVATIONS", "METRICS", "SAE", "Activation", "Attached", "BatchTopK", "Dictionary", "FeatureStats", "Gated",
           "JumpReLU", "Pass", "ReLU", "Recipe", "SAEs", "Sparse", "TopK", "Training", "attach", "from_saelens", "load_sae",
           "omit_dead", "read_openai", "read_saelens", "save_sae", "sparse", "splice", "train_sae"]
