"""The tour."""

from . import Lesson

PROMPT = 'prompt = "When Mary and John went to the store, Mary gave a drink to"'
CLEAN = 'prompt = "When Mary and John went to the store, John gave a drink to"'
HEADS = 'hl.sweep(model, prompt, sites="L*H*", method="zero", answer=" Mary", wrong=" John")'

LESSONS = [
    Lesson("next_word", right='" John"', setup=PROMPT, args="prompt, model", secrets=("John",),
           wrong={'"Mary"': "Who gives", '"store"': "Who gives", '"him"': "show top 5", '["Mary", "John"]': "One word",
                  "3": "Text is asked for"}),
    Lesson("stream_shape", right='tuple(model.capture(prompt, "L2.resid_post")["L2.resid_post"].shape)', setup=PROMPT,
           args="prompt, model", secrets=("15", "144"),
           wrong={"(14, 144)": "three axes", "(1, 13, 144)": "number of tokens", "(1, 15, 713)": "d_model",
                  "(15, 15, 144)": "batch", "7": "whole numbers",
                  "(1.9, 6.2, 144.7)": "whole numbers", "torch.tensor(3)": "whole numbers", "'1 6 144'": "whole numbers"}),
    Lesson("needed_head", right=f"min({HEADS}.top(30), key=lambda cell: cell[1])[0].values()", setup=CLEAN,
           args='prompt, " Mary", " John", model', secrets=("L0H4", "(0, 4)"),
           wrong={'"L1H2"': "grows", '"L2H4"': "more harm", '(0, 1)': "more harm|another head", '"L0H*"': "One head",
                  '"L7H0"': "5 layers"}),
]
