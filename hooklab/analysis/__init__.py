"""Analyses over runs of specs: each is a function of a model that gives `Scores`, or a small record of them.

    scores = hl.analysis.head_scores(model)

The questions asked most stand in `hooklab` itself: `sweep`, `path_patch`, `causal_trace`, `attribute`, `lens`, `generate`,
`induction_scores`. Names are loaded on first use; `geometry` and `surgery` are modules.
"""

from __future__ import annotations

from ..lazy import lazily

_HOME = {
    # what heads look at, and what they do for each other
    "head_scores": "heads",
    "attention_entropy": "heads",
    "top_attended": "heads",
    "attention_mass": "mass",
    "attention_shares": "mass",
    "attention_rollout": "flow",
    "attention_flow": "flow",
    "rollout_by_head": "flow",
    "write_heads": "readwrite",
    "read_heads": "readwrite",
    "heads_for_share": "readwrite",
    "head_redundancy": "merging",
    "merged_heads": "merging",
    "merge_effect": "merging",
    "ablated_heads": "ablating",
    "apply_head": "applied",
    "run_head": "applied",
    # weights and directions
    "composition": "composing",
    "virtual_head": "composing",
    "relations": "relation_spaces",
    "related": "relation_spaces",
    "relation_graph": "relation_spaces",
    "relation_json": "relation_spaces",
    "token_projections": "relation_spaces",
    "token_direction": "directions",
    "top_tokens": "directions",
    # the residual stream
    "decompose": "decomposition",
    "block_parts": "decomposition",
    "movement": "stream_movement",
    "circulation": "stream_movement",
    "accumulated": "stream_movement",
    "early_exit": "exits",
    "skip_layers": "exits",
    "TunedLens": "tuned",
    "train_tuned_lens": "tuned_training",
    # circuits: nodes and edges
    "edges": "edge_scores",
    "nodes": "node_scores",
    "Nodes": "node_table",
    "total_effects": "node_effects",
    "downstream": "node_effects",
    "node_write": "node_tokens",
    "token_inputs": "node_tokens",
    "circuit": "circuits",
    "Circuit": "circuits",
    "agreement": "rank_agreement",
    "patching_metrics": "outcomes",
    # neurons and features
    "mlp_basis": "neuron_basis",
    "scale_neuron": "scaling",
    "sparsity": "sparseness",
    "polysemanticity": "sparseness",
    "weight_polysemanticity": "sparseness",
    "features": "feature_rows",
    "feature_writes": "feature_rows",
    "feature_dashboard": "dashboard",
    "max_activating": "contexts",
    # what activations hold, and how they lie
    "probe": "probing",
    "single_units": "probing",
    "knowledge_probe": "knowledge",
    "Moments": "moments",
    "principal": "moments",
    "independent": "moments",
    "interpolate": "moments",
    "nonnegative": "factors",
    "cluster_overlap": "overlaps",
    "geometry": "geometry",
    "modality_vectors": "modality",
    "modality_similarity": "modality",
    "modality_geometry": "modality",
    # models changed, and what they say
    "surgery": "surgery",
    "prune": "pruning",
    "pruning_curve": "pruning",
    "log_probs": "generate",
}

__all__ = [*_HOME]
__getattr__, __dir__ = lazily(__name__, _HOME, unknown="there is no analysis {}", whole=("geometry", "surgery"),
                                rooms={"hl": "hooklab", "hl.sae": "hooklab.sae"})
