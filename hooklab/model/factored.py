"""Low-rank matrices kept as a product of two thin ones: what `model.W.OV` and `model.W.QK` return.

A head's OV and QK matrices are d_model × d_model but of rank d_head. Norm, singular values, eigenvalues and trace
follow from problems of size rank × rank; the big matrix is formed only by `full()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factored:
    """The matrix M = left @ right, [… n m], never multiplied out. Leading axes (heads, say) are batched.

    Attributes:
        left: [… n rank].
        right: [… rank m].

    Raises:
        ValueError: the factors do not fit together.

    Example:
        >>> left, right = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]])
        >>> m = Factored(left, right)
        >>> m
        Factored(2 × 2, rank 1)
        >>> m.trace(), m @ torch.tensor([1.0, 0.0])
        (tensor(11.), tensor([3., 6.]))
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if min(self.left.ndim, self.right.ndim) < 2 or self.left.shape[-1] != self.right.shape[-2]:
            raise ValueError(f"Factors [… n rank] and [… rank m] are needed, not {list(self.left.shape)} and "
                             f"{list(self.right.shape)}.")
        try:
            torch.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2])
        except RuntimeError:
            raise ValueError(f"The leading axes of {list(self.left.shape)} and {list(self.right.shape)} do not "
                             "match.") from None

    # Shape ------------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> tuple[int, ...]:
        """Sizes of the leading axes."""
        return tuple(torch.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the matrix (or matrices): […, n, m]."""
        return *self.batch, self.left.shape[-2], self.right.shape[-1]

    @property
    def rank(self) -> int:
        """Size of the axis that the factors share; the matrix's rank is at most that."""
        return self.left.shape[-1]

    @property
    def T(self) -> Factored:
        """The transpose, [… m n]."""
        return Factored(self.right.mT, self.left.mT)

    def __getitem__(self, index: Any) -> Factored:
        """Some of the batched matrices: `model.W.OV(3)[5]`.

        Raises:
            IndexError: the index reaches past the leading axes, into the matrix.
        """
        picked = index if isinstance(index, tuple) else (index,)
        if any(i is None or i is ... for i in picked) or len(picked) > len(self.batch):
            raise IndexError(f"Only the {len(self.batch)} leading axes of {list(self.shape)} can be indexed; "
                             "use full() for entries of the matrix.")
        left = self.left.expand(*self.batch, *self.left.shape[-2:])
        right = self.right.expand(*self.batch, *self.right.shape[-2:])
        return Factored(left[picked], right[picked])

    # Products ---------------------------------------------------------------------------------------------------

    def __matmul__(self, other: Tensor | Factored) -> Any:
        """M @ other: a tensor for a vector [m], and otherwise Factored again, with the smaller rank of the two."""
        if isinstance(other, Factored):
            core = self.right @ other.left  # [… rank other.rank]
            if self.rank <= other.rank:
                return Factored(self.left, core @ other.right)
            return Factored(self.left @ core, other.right)
        if not isinstance(other, Tensor):
            return NotImplemented
        if other.ndim == 1:
            return (self.left @ (self.right @ other).unsqueeze(-1)).squeeze(-1)
        return Factored(self.left, self.right @ other)

    def __rmatmul__(self, other: Tensor) -> Any:
        """other @ M: a tensor for a vector [n], otherwise Factored again."""
        if not isinstance(other, Tensor):
            return NotImplemented
        if other.ndim == 1:
            return ((other @ self.left).unsqueeze(-2) @ self.right).squeeze(-2)
        return Factored(other @ self.left, self.right)

    def pair(self, x: Tensor, y: Tensor) -> Tensor:
        """xᵀ M y for vectors x [… n] and y [… m], whose leading axes broadcast against the matrix's: […]."""
        read = torch.einsum("...n,...nr->...r", x, self.left)
        return (read * torch.einsum("...rm,...m->...r", self.right, y)).sum(-1)

    def full(self) -> Tensor:
        """The matrix itself, [… n m]."""
        return self.left @ self.right

    # What the matrix is like ------------------------------------------------------------------------------------

    def norm(self) -> Tensor:
        """Frobenius norm, […]."""
        _, core, _ = self._orthogonal()
        return torch.linalg.matrix_norm(core)

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U [… n k], S [… k] (falling), Vh [… k m] with M = U diag(S) Vh and k = min(n, m, rank).

        Half-precision factors are treated in float32.
        """
        q_left, core, q_right = self._orthogonal()
        u, s, vh = torch.linalg.svd(core, full_matrices=False)
        return q_left @ u, s, vh @ q_right.mT

    def eigenvalues(self) -> Tensor:
        """Eigenvalues that can differ from zero, complex [… min(n, rank)], largest modulus first.

        Raises:
            ValueError: the matrix is not square.
        """
        self._check_square("eigenvalues")
        # left right and right left share their non-zero eigenvalues
        values = torch.linalg.eigvals(_precise(self.right) @ _precise(self.left))
        order = values.abs().argsort(dim=-1, descending=True)
        return values.gather(-1, order)[..., : self.left.shape[-2]]

    def trace(self) -> Tensor:
        """Sum of the diagonal, […].

        Raises:
            ValueError: the matrix is not square.
        """
        self._check_square("a trace")
        return (self.left * self.right.mT).sum((-2, -1))

    def _orthogonal(self) -> tuple[Tensor, Tensor, Tensor]:
        """Q, C, P with orthonormal columns in Q and P and M = Q C Pᵀ; C is rank × rank at most."""
        q_left, r_left = torch.linalg.qr(_precise(self.left))
        q_right, r_right = torch.linalg.qr(_precise(self.right.mT))
        return q_left, r_left @ r_right.mT, q_right

    def _check_square(self, what: str) -> None:
        n, m = self.shape[-2:]
        if n != m:
            raise ValueError(f"A {n} × {m} matrix has no {what.removeprefix('a ')}: it is not square.")

    def __repr__(self) -> str:
        many = " × ".join(map(str, self.batch))
        return f"Factored({many + ' of ' if many else ''}{self.shape[-2]} × {self.shape[-1]}, rank {self.rank})"


def _precise(x: Tensor) -> Tensor:
    """`x` in float32 at least: half precision has no decompositions."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
