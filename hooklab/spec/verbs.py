"""The table of the language: every verb with its form, its meaning, an example and its options.

Checker, completer, `%hook help` and the reference in `docs/` all read this one table.
"""

from __future__ import annotations

from dataclasses import dataclass

NUMBER, WHOLE, TRUTH, WORD, TEXT, VALUE = "number", "whole number", "true or false", "word", "text", "value"


@dataclass(frozen=True)
class Option:
    """`name=value` at the end of a line.

    Attributes:
        kind: What the value must be.
        does: One line.
        words: The words that it may be, for a choice.
    """

    name: str
    kind: str
    does: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verb:
    """One kind of line.

    Attributes:
        name: The word that the line starts with.
        kind: `declare`, `edit`, `read`, `write on` or `run`.
        form: How it is written; `[…]` may be left out, CAPITALS stand for something.
        does: What it does, in one sentence.
        example: A line that works.
        options: What may follow as `name=value`.
    """

    name: str
    kind: str
    form: str
    does: str
    example: str
    options: tuple[Option, ...] = ()

    @property
    def option_names(self) -> tuple[str, ...]:
        """Names of the options."""
        return tuple(option.name for option in self.options)


STEPS = Option("steps", VALUE, "under `generate`: at which steps the edit acts; 0 is the prompt", ("prompt", "new", "all"))
SEED = Option("seed", WHOLE, "seed of this line's random numbers; by default they derive from `seed` and the line")
WINDOW = Option("window", WHOLE, "act on this many layers around the one named, in a sweep over layers")
HOLDS = ("norms", "patterns", "all")
LENS_NORMS = ("own", "frozen", "none")
TOP = Option("top", WHOLE, "how many to show")

_ROWS = (
    Verb("hookspec", "declare", "hookspec VERSION", "Says which version of the language the text is written in.",
         "hookspec 1"),
    Verb("model", "declare", 'model "NAME"', "Names the model that the spec is for.", 'model "gpt2" revision="main"',
         (Option("revision", TEXT, "revision on the hub"), Option("dtype", WORD, "type of the weights",
                                                                  ("float32", "bfloat16", "float16")),
          Option("device", TEXT, "where to put the model"))),
    Verb("prompt", "declare", "prompt [NAME =] TEXT | [TEXT, …] | {python} | repeat_random(N)",
         "Declares an input; every prompt is also run untouched, and that run has the prompt's name.",
         'prompt clean = "When John and Mary went to the store"',
         (Option("image", VALUE, "an image or a list of images"),
          Option("chat", TRUTH, "the value is chat messages, or text to be put into the user's turn"))),
    Verb("mark", "declare", "mark NAME = POSITION [in PROMPT]",
         "Names positions; they are found in each prompt for itself.", 'mark subject = "The Space Needle"'),
    Verb("answer", "declare", "answer TEXT [vs TEXT]",
         "Says which next token is right, and which wrong; metrics such as logit_diff compare them.",
         'answer " Mary" vs " John"'),
    Verb("sae", "declare", "sae NAME = {python} | \"FILE\" at SITE [to SITE]",
         "Attaches a dictionary of features to a site; `NAME.F12` is then a place. A transcoder reads one site and writes "
         "to another. Saved features are those of the site as it then stands: one that was set to 0 may come back, weakly, "
         "from what the dictionary does not explain.", "sae enc = {my_sae} at L8.resid_pre",
         (Option("error", WORD, "what it does not explain: keep it, or drop it in every run but a prompt's own, which then "
                                "goes on with the reconstruction", ("keep", "drop")),)),
    Verb("let", "declare", "let NAME = VALUE", "Names a value.", "let love = mean(pos.L6.resid @last)"),
    Verb("group", "declare", "group NAME = PLACES", "Names places.", "group movers = L9H9, L9H6, L10H0"),
    Verb("sweep", "declare", "sweep NAME in [VALUES] | START:STOP | {python}",
         "A variable with several values: every run that uses it is done once for each.", "sweep c in [0, 2, 4, 8]"),
    Verb("seed", "declare", "seed NUMBER", "Sets the seed that all randomness derives from (0 unless said).", "seed 7"),
    Verb("metric", "declare", "metric [NAME =] EXPRESSION",
         "A number computed from every run's logits, at the last position unless another is named.",
         "metric logit_diff"),
    Verb("expect", "declare", "expect VALUE < | > | <= | >= | == | != | ~= VALUE",
         "Checks a claim about the results; a spec whose claims fail is an error with both numbers.",
         "expect hooked.logit_diff < baseline.logit_diff"),
    Verb("save", "read", "save PLACES [as NAME]", "Keeps activations, as they are after the run's edits.",
         "save L*.resid_post @last as stream",
         (Option("steps", VALUE, "under `generate`: which steps to keep; 0 is the prompt", ("prompt", "new", "all")),)),
    Verb("zero", "edit", "zero PLACES", "Sets to zero.", "zero L9H9, L9H6", (WINDOW, STEPS)),
    Verb("ablate", "edit", "ablate PLACES [with zero | mean | resample] [over PROMPT]",
         "Replaces by zero, by the mean over a prompt's examples, or by the value of an example drawn from it.",
         "ablate each L*H* with mean over abc",
         (SEED, Option("per", WORD, "mean over examples at each position, or over all tokens", ("pos", "all")), WINDOW,
          STEPS)),
    Verb("patch", "edit", "patch PLACES from RUN | VALUE | \"FILE\"",
         "Replaces by the value of the same place in another run, or of another place, or by a given value.",
         "patch each L*.resid @each from clean",
         (WINDOW, Option("align", WORD, "how positions of the two prompts are matched", ("name", "index", "token")),
          Option("mlps", WORD, "in path patching: MLPs between the ends are computed anew, or held",
                 ("recompute", "freeze")), STEPS)),
    Verb("freeze", "edit", "freeze PLACES [to RUN]", "Holds at the value of the untouched run, or of another.",
         "freeze L*.pattern", (WINDOW, STEPS)),
    Verb("steer", "edit", "steer PLACES by VALUE", "Adds a value.", "steer L6.resid by 4 * {vec}", (WINDOW, STEPS)),
    Verb("scale", "edit", "scale PLACES by VALUE", "Multiplies by a value.", "scale L9H6 by each [0, 0.5, 1, 2]",
         (WINDOW, STEPS)),
    Verb("set", "edit", "set PLACES to VALUE", "Replaces by a value.", "set L8N12 @last to 3.5", (WINDOW, STEPS)),
    Verb("clamp", "edit", "clamp PLACES [min=NUMBER] [max=NUMBER]", "Keeps between two bounds.",
         "clamp L8N[12,13] min=0 max=5",
         (Option("min", NUMBER, "smallest value"), Option("max", NUMBER, "largest value"), WINDOW, STEPS)),
    Verb("project_out", "edit", "project_out PLACES along VALUE", "Removes the component along a direction.",
         "project_out L*.resid along {refusal_dir}", (WINDOW, STEPS)),
    Verb("noise", "edit", "noise PLACES [by VALUE]",
         "Adds Gaussian noise of a standard deviation; `sigma` is that of the site in the untouched run.",
         "noise embed @subject by 3 * sigma samples=10 seed=0",
         (Option("samples", WHOLE, "independent draws; metrics are averaged over them"), SEED, WINDOW, STEPS)),
    Verb("cut", "edit", "cut HEADS [@KEYS -> @QUERIES]",
         "Removes attention from key positions to query positions, before the softmax (the rest of the row grows to sum "
         "to 1) or with renorm=false after it (the row loses what was cut).",
         "cut L5:9 @subject -> @last",
         (Option("renorm", TRUTH, "cut before the softmax (true, the default) or after it"), WINDOW, STEPS)),
    Verb("attribute", "read", "attribute PLACES [to METRIC] [with grad | ig | patch | dla] [from PROMPT]",
         "Says how much each place contributes to a metric.", "attribute L*H*, L*.mlp, embed with dla",
         (Option("steps", WHOLE, "steps of integrated gradients"),
          Option("hold", WORD, "what gradients take for constant: the norms' divisors, the attention patterns, or both",
                 HOLDS),
          Option("target", VALUE, 'an activation to attribute to instead of a metric: "L5H2.pattern[7,3]", "L3N17 @last"'),
          Option("check", VALUE, "how many cells, or all, to compare with the exact effect of zeroing or patching them",
                 ("all",)),
          Option("seed", WHOLE, "seed of the draw of the cells that are checked"))),
    Verb("score", "read", "score HEADS with induction | previous | duplicate | current | first | {python}",
         "Rates attention heads by where they look.", "score each L*H* with induction"),
    Verb("lens", "read", "lens [PLACES]",
         "Reads the stream, what is written to it, or heads, through the final norm and the unembedding.",
         "lens L*.resid_post @each top=3",
         (TOP, Option("norm", WORD, "the final norm: each vector's own, with the last stream's divisor (frozen), or none",
                      LENS_NORMS),
          Option("tuned", VALUE, "a tuned lens in braces: translators before the norm"))),
    Verb("generate", "write on", "generate TOKENS", "Writes on, token by token, with the run's edits in force.",
         "generate 20 temperature=0",
         (Option("temperature", NUMBER, "0 takes the likeliest token; above 0 draws"),
          Option("top_k", WHOLE, "draw among the likeliest k"), Option("top_p", NUMBER, "draw among the likeliest p"),
          Option("seed", WHOLE, "seed of the draws"), Option("samples", WHOLE, "continuations for each prompt"),
          Option("stop", VALUE, "text, or list of texts, to stop at"),
          Option("stream", TRUTH, "show the text as it is written"))),
    Verb("show", "read", "show VIEW [NUMBER] [PLACES]", "Draws a view of the result.", "show grid",
         (TOP, Option("by", WORD, "what is drawn", ("norm", "value", "abs")), Option("title", TEXT, "heading"))),
    Verb("run", "run", "run [NAME] on PROMPT | RUN:", "Runs the verbs below it on a prompt, or on top of another run.",
         "run patched on corrupt:"),
)

VERBS: dict[str, Verb] = {row.name: row for row in _ROWS}
VIEWS = ("attention", "heads", "resid", "lens", "tokens", "top", "grid", "diff", "graph", "features", "table", "text")
VIEW_SYNONYMS = {"heatmap": "grid", "map": "grid", "plot": "grid", "chart": "grid", "matrix": "grid", "pattern": "attention",
                 "patterns": "attention", "attn": "attention", "logits": "top", "predictions": "top", "logit_lens": "lens",
                 "residual": "resid", "stream": "resid", "circuit": "graph"}
METRICS = ("logit", "logit_diff", "logit_centred", "prob", "logprob", "kl", "loss", "rank", "entropy", "top")
FUNCTIONS = ("mean", "norm", "unit", "cos", "dot", "max", "min", "sum", "abs", "proj", "std", "first")
CLAIM_FUNCTIONS = ("max", "min", "mean", "sum", "abs", "std")
GENERATORS = ("repeat_random", "random")
ABLATIONS = ("zero", "mean", "resample")
ATTRIBUTIONS = ("grad", "ig", "patch", "dla")
SCORES = ("induction", "previous", "duplicate", "current", "first")
SYNONYMS = {
    "knockout": "zero", "knock_out": "zero", "remove": "zero", "delete": "zero", "kill": "zero",
    "add": "steer", "inject": "steer", "cache": "save", "capture": "save", "read": "save", "get": "save",
    "record": "save", "store": "save", "replace": "patch", "restore": "patch", "swap": "patch", "copy": "patch",
    "multiply": "scale", "write": "set", "assign": "set", "mask": "cut", "block": "cut", "sever": "cut",
    "corrupt": "noise", "perturb": "noise", "project": "project_out", "erase": "project_out", "hold": "freeze",
    "plot": "show", "display": "show", "print": "show", "draw": "show", "view": "show", "input": "prompt",
    "text": "prompt", "target": "answer", "label": "answer", "measure": "metric", "assert": "expect",
    "check": "expect", "continue": "generate", "sample": "generate", "logit_lens": "lens", "mean": "ablate",
    "resample": "ablate", "dla": "attribute", "grad": "attribute", "define": "let", "var": "let", "set_seed": "seed",
}
