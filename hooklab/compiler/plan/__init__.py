"""What a compiled spec is: runs over prompts, each with its sweep cells, edits and reads, all names resolved.

No tensors and no torch: sites, layers, heads, positions and token ids are numbers here, values are small expressions over
what earlier runs will have captured. The runtime needs nothing else.

    spots, reaches, values ─▶ edits ─▶ cells ┐
            readings, measures ──────────────┴▶ runs ┐
                               claims, views ────────┴▶ plan
"""
