"""`mlp_basis`: the directions that the neurons of a layer read from the stream and write to it.

    mlp(x) = act(x In) Out  (or act(x Gate) ⊙ (x In), times Out)

One row for each neuron, whatever class stores the weights; and In Out, which is what the MLP would do without its
nonlinearity, as a product of thin matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..address import check_index
from ..model.factored import Factored
from ..records import Scores
from ..records.drawn import Drawn

if TYPE_CHECKING:
    from ..model.model import Model


@dataclass(frozen=True, eq=False)
class MlpBasis(Drawn):
    """Read and write directions of one layer's neurons.

    Attributes:
        layer: Which layer.
        reads: [d_mlp d_model]; what each neuron reads (of a gated MLP: its linear branch).
        writes: [d_mlp d_model]; what each neuron writes to the stream when it is 1.
        gates: [d_mlp d_model]; what the gate of each neuron reads; None where there is no gate.
        b_reads: [d_mlp], added to what is read.
        b_gates: [d_mlp], or None.
        b_writes: [d_model], added to what all neurons write.
    """

    layer: int
    reads: Tensor
    writes: Tensor
    gates: Tensor | None
    b_reads: Tensor
    b_gates: Tensor | None
    b_writes: Tensor

    @property
    def map(self) -> Factored:
        """In Out, [d_model d_model], never multiplied out: `x @ basis.map` is what neurons would write of x if they were
        linear and, where there is a gate, all gates were 1; biases apart."""
        return Factored(self.reads.mT, self.writes)

    @property
    def gated_map(self) -> Factored | None:
        """The same through the gates' weights; None where there is no gate."""
        return None if self.gates is None else Factored(self.gates.mT, self.writes)

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Directions read [d_model rank], strengths [rank] (falling) and directions written [rank d_model] of `map`."""
        return self.map.svd()

    def pictures(self) -> dict[str, Scores]:
        """Of every neuron, [neuron]: the length of what it reads and of what it writes, and how alike the two are."""
        def scores(values: Tensor, name: str, unit: str = "length") -> Scores:
            return Scores(values.detach().double().cpu().numpy(), ("neuron",), {}, unit, name, note=f"layer {self.layer}")

        gates = {} if self.gates is None else {"gates": scores(self.gates.norm(dim=-1), "norm of the gate's direction")}
        return {"reads": scores(self.reads.norm(dim=-1), "norm of the read direction"), **gates,
                "writes": scores(self.writes.norm(dim=-1), "norm of the write direction"),
                "alike": scores(cosine_similarity(self.reads, self.writes, dim=-1), "read and write direction", "cosine")}

    def __repr__(self) -> str:
        return f"MlpBasis(layer {self.layer}: {self.reads.shape[0]} neurons, d_model {self.reads.shape[1]}" + (
            ", gated)" if self.gates is not None else ")")


def mlp_basis(model: Model, layer: int, *, fold: bool = False) -> MlpBasis:
    """What the neurons of a layer read and write, one row for each.

    Args:
        model: An opened model.
        layer: Which layer.
        fold: Move the gain and bias of the norm before the MLP into what is read, so that neurons read the normalised
            stream without gain; a norm behind the MLP (Gemma 2, OLMo 2) is left alone.

    Raises:
        LayerError: there is no such layer.
        SiteNameError: the MLP is a mixture of experts, which has no weights of its own.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> basis = mlp_basis(model, 2)
        >>> basis.reads.shape == basis.writes.shape == (model.facts.d_mlp, model.facts.d_model)
        True
    """
    layer = check_index(layer, model.facts.n_layers, "layer")
    weights = model.W.folded() if fold else model.W
    gated = weights.missing("Gate") is None
    return MlpBasis(layer, weights.In[layer].mT, weights.Out[layer], weights.Gate[layer].mT if gated else None,
                    weights.b_In[layer], weights.b_Gate[layer] if gated else None, weights.b_Out[layer])
