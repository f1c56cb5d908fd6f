"""Checks for learners: each exercise of the tutorials has a function here that says what is wrong without the answer.

    import hooklab as hl
    hl.check.induction_heads(["L1H2"], model)

A check works the truth out on the model that it is given, so that the same exercise holds for another model. Its answer is
a `Verdict`, which shows itself as the last line of a cell. `hl.check.expect(claim, sentence)` shows whether a claim of the
text holds on this model. Neither stops a notebook, unless the environment has `HOOKLAB_CHECK=strict`.
"""

from __future__ import annotations

from ..lazy import lazily

_HOME = {
    "CheckError": "verdict",
    "Verdict": "verdict",
    "expect": "verdict",
    "exercises": "exercise",
    "next_word": "tour",
    "stream_shape": "tour",
    "needed_head": "tour",
    "head_values": "forward_pass",
    "longest_write": "forward_pass",
    "attention_function": "forward_pass",
    "previous_token_head": "attention",
    "raised_score": "attention",
    "turning_heads": "attention",
    "induction_heads": "induction",
    "heads_to_remove": "induction",
    "repeating_pattern": "induction",
    "bill": "steering",
    "erasing": "steering",
    "fair_null": "steering",
    "settled_layers": "lens",
    "head_shares": "lens",
    "confidently_wrong": "lens",
    "corrupted_prompt": "indirect_objects",
    "noised_heads": "indirect_objects",
    "small_circuit": "indirect_objects",
    "total_effect": "facts",
    "name_halves": "facts",
    "severed": "facts",
    "explained_share": "features",
    "object_feature": "features",
    "loss_recovered": "features",
    "times_even": "images",
    "gathering_layer": "images",
    "narrowness": "images",
    "even_distance": "your_own",
    "padded_distance": "your_own",
    "family_table": "your_own",
}
"""Where each name lives; one module per tutorial."""

__all__ = [*_HOME]
__getattr__, __dir__ = lazily(__name__, _HOME, unknown="there is no exercise {}")
