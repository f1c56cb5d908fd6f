"""Packed sweeps: all cells of a sweep as one growing batch of suffixes over one recorded pass.

    base (one ordinary pass, recorded) ─▶ strands (who departs where) ─▶ walk (block by block) ─▶ last logits

A cell is the recorded pass up to its own first change. The walk goes through the blocks once; at each block the cells
that depart there join the batch with the tokens from their first change on; attention sees the recorded keys and values
before that token and the cell's own after it. Before the unembedding only the last token is left of every cell.
"""
