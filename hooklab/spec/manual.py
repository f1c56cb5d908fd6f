"""The prose of the reference: what `%hook help` says beside the tables of verbs, options and sites.

Every example is a whole spec that runs on the shipped model; what it takes from Python stands above it.
"""

from __future__ import annotations

from .manual_lines import BRACES, LINES
from .section import Section

IDEA = ("Every line starts with a verb; then says where (`L2H1`, `L0:2.resid`, `@last`); then, after one preposition, "
        "what (`from clean`, `by 4 * {vec}`); then options, `name=value`. `each` before a place means one at a time. "
        "Python goes between braces.")


SITES = Section(
    "sites", "Places: sites and addresses",
    text=(
        "A site is a named point of the forward pass. Its address says in which layer, and in which head or "
        "neuron; counting starts at 0, slices are Python's (the stop is excluded), and negative numbers count "
        "from the end. A layer and head without a site mean the head's own write to the stream (`result`); in "
        "`cut` and `show attention` they mean its attention.",
        "Several places in one line act together. With `each` they act one at a time, and the result has an axis "
        "for them: `each L*H*` has the axes layer and head, a list or a group has the axis site.",
    ),
    rows=(
        ("L5.resid_post",
         "a site of a layer; `resid` is short for it, `attn` for attn_out, `mlp` for mlp_out, `neurons` for mlp_post"),
        ("L*.mlp", "the site in every layer"),
        ("L0:6.z, L[0,3,5:8].z, L-1.z", "in some layers"),
        ("L9H6, L9H[1,6].q, L*H*", "heads"),
        ("L8N300, L8N[12,13]", "neurons of the MLP"),
        ("L5.resid[3,7], L5.resid[0:10]", "dimensions of the stream"),
        ("embed, pos_embed, ln_final, logits", "sites of the model"),
        ("enc.F12, enc.F[3,7]", "features of a dictionary that `sae enc = …` attached"),
        ("movers", "places that `group movers = …` named"),
        ("L*H* except movers", "all but some"),
        ("{heads}", "places computed in Python: an address or a list of them"),
        ("clean.L3.resid @last", "in a value: the activation of a run"),
        ("L1H0 -> L2H1.q", "only what flows from one to the other"),
    ),
    examples=(
        'prompt "When Mary and John went to the store, John gave a drink to"\n'
        "group movers = L2H0, L2H1\n"
        "save L*.resid_post @last as stream\n"
        "zero L*H* except movers",
    ),
)

POSITIONS = Section(
    "positions", "Positions: which tokens",
    text=(
        "A position follows `@`. It is found in each prompt for itself, on the tokens without padding. A site "
        "without one means every position. Positions that are listed or spelled by several tokens act together; "
        "after `@each` they act one at a time, and the result has the axis position.",
        "A text in quotes is matched against the tokens; it must occur once, unless an occurrence is chosen. "
        "Positions combine with `|`, `&` and `-`, which bind as in Python; brackets go around a combination.",
    ),
    rows=(
        ("@last, @first, @all", "the last token, the first, every one"),
        ("@3, @-2, @1:5", "by number, as in Python"),
        ("@[0, 2, last]", "several together"),
        ('@" Mary"', "the tokens that spell a text"),
        ('@" Mary"[1], @" Mary"[*]', "its second occurrence, all of them"),
        ("@subject", "positions that `mark subject = …` named"),
        ("@subject.last", "edges: .first .last, and .next .prev just outside; .offset(2) moves"),
        ("@each, @each [0, subject, last]", "one at a time"),
        ("@(all - first)", "a combination"),
        ("@prompt, @new", "while writing on: tokens of the prompt, tokens written"),
        ("@image, @text, @special, @bos", "tokens by what they are"),
        ("@boi, @eoi, @image[1], @eoi[0]", "markers that begin and end an image; one image of several, counted from 0"),
        ("@row(0), @column(-1, of=image[0])", "a row or column of every image, or of one"),
        ('@span("M\\w+")', "tokens that a regular expression matches"),
        ('@turn("user")', "a speaker's turns in a chat"),
        ("@random(3, seed=1)", "some tokens, drawn"),
        ('@split(" and")[0]', "a part of the sequence"),
        ("@{where}", "numbers, or a selector, from Python"),
    ),
    examples=(
        'prompt "When Mary and John went to the store, John gave a drink to"\n'
        'mark subject = " Mary"\n'
        "zero L1.mlp @subject.last\n"
        "zero L0.attn @(all - first)\n"
        "save L2.resid @[0, last]",
    ),
)

RUNS = Section(
    "runs", "Runs and sweeps",
    text=(
        "Every prompt is first run untouched; that run has the prompt's name, and is `baseline` to the runs on "
        "the same prompt. Lines that change or read something belong to a run. Outside a `run` block they make "
        "the run `hooked` on the only prompt, which is called `main` when it has no name.",
        "In a run the order of lines does not matter across sites: they act in the order of the forward pass. "
        "Lines on the same site act from top to bottom, and `save` keeps what is there after them. `run b on a:` "
        "starts from run `a`, with all that `a` changes.",
        "A sweep does the runs that use it once for every value. `each` before places, `@each` and `by each [0, "
        "1]` are sweeps without a name. Each sweep is an axis of the result.",
        "`patch X from run` takes the same site at the same named positions of the other run; where the two "
        "prompts have different numbers of tokens it says so and shows both.",
    ),
    rows=(
        ("run NAME on PROMPT:", "then indented lines, or one line right after the colon"),
        ("run NAME on RUN:", "on top of another run"),
        ("sweep c in [0, 2, 4]", "a variable with values"),
        ("sweep l in 0:3", "whole numbers; `L[l].mlp` uses them as a layer"),
    ),
    examples=(
        'prompt clean = "When Mary and John went to the store, John gave a drink to"\n'
        'prompt corrupt = "When Mary and John went to the store, Mary gave a drink to"\n'
        'answer " Mary" vs " John"\n'
        "metric logit_diff\n"
        "run patched on corrupt:\n"
        "    patch each L*.resid @each from clean\n"
        "show grid",
        'prompt "When Mary and John went to the store, John gave a drink to"\n'
        "sweep l in 0:3\n"
        "metric kl(baseline)\n"
        "zero L[l].mlp",
    ),
)

VALUES = Section(
    "values", "Values and functions",
    text=(
        "A value is a number, Python between braces, an activation of a run, or arithmetic of them. Its shape "
        "must fit the place it goes to: a vector of the site's width, or one per position. `sigma`, in `noise`, "
        "is the standard deviation of the site in the untouched run.",
        "Braces hold one Python expression. In a notebook it is evaluated once, before anything runs, among the "
        "notebook's own names. A spec from a file or from the command line never runs Python: its braces are "
        "names for values that come from `--set name=value`.",
    ),
    rows=(
        ("4 * {vec}", "numbers and Python"),
        ("{a} - {b}", "+ - * / and brackets"),
        ("happy.L2.resid @last", "an activation of a run"),
        ("baseline.L2.resid", "of the untouched run"),
        ("love", "what `let love = …` named, or a sweep's variable"),
        ("mean(x), std(x), sum(x), max(x), min(x)", "over examples and positions"),
        ("norm(x), unit(x), abs(x)", "length, the same direction with length 1, sizes"),
        ("cos(x, y), dot(x, y), proj(x, y)", "angle, product, projection onto y"),
    ),
    examples=(
        'prompt happy = "Mary went to the store"\n'
        'prompt sad = "John went to the park"\n'
        "let way = unit(happy.L1.resid @last - sad.L1.resid @last)\n"
        "run moved on sad:\n"
        "    steer L1.resid @last by 3 * way\n"
        "show top 5",
    ),
)

METRICS = Section(
    "metrics", "Metrics",
    text=(
        "A metric is a number computed from the logits of every run, at the last position unless another is "
        "named. With several examples it is their mean. `answer` says which token is right and which wrong; each "
        "example may have its own.",
    ),
    rows=(
        ("logit_diff", "logit of the right answer less that of the wrong one"),
        ("logit, prob, logprob", 'of the right answer, or of a token: prob(" Mary")'),
        ("logit_centred", "logit of the answer less the mean over the vocabulary"),
        ("rank", "place of the answer in the order of logits; 0 is first"),
        ("kl(baseline)", "divergence from another run"),
        ("loss", "mean loss of predicting the prompt's own tokens"),
        ("entropy", "of the next token"),
        ("top", "the likeliest tokens"),
        ('ld = logit(" a") - logit(" b")', "arithmetic, under a name"),
        ('p = prob(" a") + prob(" b")', "several answers: their sum, or a mean, is arithmetic too"),
        ("{function}", "Python: from the run's output to a number"),
        ("hooked.logit_diff", "in `expect`: the metric of a run"),
        ("max(hooked.logit_diff)", "in `expect`: the largest over all points of a sweep; so min, mean, sum and std"),
        ("abs(hooked.logit_diff - 2)", "in `expect`: its size; of each point, where the run is swept"),
    ),
    examples=(
        'prompt "When Mary and John went to the store, John gave a drink to"\n'
        'answer " Mary" vs " John"\n'
        "metric logit_diff\n"
        'metric p = prob(" Mary") @last\n'
        "metric kl(baseline)\n"
        "zero L2H0\n"
        "expect baseline.logit_diff > 0",
        'prompt "When Mary and John went to the store, John gave a drink to"\n'
        'answer " Mary" vs " John"\n'
        "metric logit_diff\n"
        "zero each L*H*\n"
        "expect min(hooked.logit_diff) < baseline.logit_diff\n"
        "expect max(abs(hooked.logit_diff - baseline.logit_diff)) > 1",
    ),
)

GENERATION = Section(
    "generation", "Writing on, step by step",
    text=(
        "`generate` writes on with the run's edits in force. A line without a position acts at every step; "
        "`@prompt` at the prompt only, `@new` at the tokens that are written; `steps=` chooses steps by number, "
        "where 0 is the prompt. `temperature=0` takes the likeliest token.",
    ),
    rows=(
        ("generate 20", "up to twenty tokens"),
        ("temperature=0.7 top_k=40 top_p=0.9 seed=1", "how they are drawn"),
        ("samples=3", "several continuations"),
        ("save L*.resid steps=[0, 2]", "keep the prompt and the second new token"),
        ('stop="."', "where to stop"),
    ),
    examples=(
        'prompt "Mary went to the store because"\n'
        "ablate L2H0 @new with zero\n"
        "generate 12 temperature=0\n"
        "show text",
    ),
)

ERRORS = Section(
    "errors", "Errors",
    text=(
        "A mistake is shown where it stands: what is wrong, the line with a caret, and what to write instead. All"
        " mistakes of a cell are shown together, and nothing runs before all of it has been understood. In a "
        "notebook the `%%hook` line is line 1.",
    ),
    rows=(
        ("HookSyntaxError", "the text cannot be read"),
        ("HookNameError", "a word that means nothing here"),
        ("HookValueError", "something cannot be what it is used as, or Python between braces failed"),
        ("HookModelError", "this model lacks it"),
        ("HookRunError", "something went wrong while running"),
        ("HookExpectError", "a claim does not hold; both numbers are shown"),
        ("HookVersionError", "written in a newer version of the language"),
    ),
)

SHARING = Section(
    "sharing", "Sharing: files, JSON and seeds",
    text=(
        "The text is the spec: what it prints reads back as itself. `%hook save name.hook` writes the last cell's"
        " text to a file, with the versions it ran under; `%hook run name.hook` and `hooklab run name.hook` run "
        "it. `%%hook --json` shows it as data, `hl.Spec.from_json` reads that. `hookspec 1` in the first line "
        "says which version of the language it is written in, `model` which model it is for, `seed` where random "
        "numbers come from; a line's draws do not change when other lines are added. `expect` lines make a spec "
        "check itself.",
        "`spec.freeze(values)` gives a spec the values of its Python, by the source between the braces. Numbers, "
        "texts, lists of them and positions become part of the text; arrays and the rest are kept beside it. "
        "`frozen.save(path)` writes both into one .npz with its sha256, `hooklab.spec.freeze.Frozen.load` reads it "
        "and refuses one that was changed, and `model.run(frozen.spec, values=frozen.values)` runs it without the "
        "notebook.",
    ),
    rows=(
        ("%hook save x.hook", "write the last cell's text to a file"),
        ("%hook load x.hook", "put a file's text into a new cell"),
        ("%hook run x.hook --set vec=[1,2]", "run a file; values for its braces are JSON"),
        ("hooklab run x.hook --json", "the same from a shell"),
        ("%hook json", "the last cell as data"),
        ("%hook history, %hook replay 2", "what was run, and whether it comes out the same again"),
    ),
    examples=(
        "hookspec 1\n"
        'model "lab"\n'
        "seed 7\n"
        'prompt "When Mary and John went to the store, John gave a drink to"\n'
        'answer " Mary" vs " John"\n'
        "metric logit_diff\n"
        "noise L0.resid by 3 * sigma\n"
        "expect hooked.logit_diff < baseline.logit_diff",
    ),
)

SECTIONS: dict[str, Section] = {
    section.name: section for section in (LINES, SITES, POSITIONS, RUNS, VALUES, BRACES, METRICS, GENERATION, ERRORS,
                                          SHARING)}
