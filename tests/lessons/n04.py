"""Answers to the exercises of tutorial 04."""

from lessons import Lesson

QUESTIONS = """
questions = {"The capital of Italy is": " Rome", "The capital of Germany is": " Berlin", "Mary was tired, so": " she"}
def settled(prompt, said):
    rank = hl.lens(model, prompt, answer=said, value="rank", positions="last").values
    return max((layer + 1 for layer in range(len(rank)) if rank[layer] > 0), default=0)
"""
SHARES = """
story = "When Mary and John went to the store, John gave a drink to"
asked = dict(answer=" Mary", wrong=" John", positions="last")
acts = model.capture(story, ["L*.result", "ln_final_scale"], at="last")
U = model.W.folded(centre=True).U
yes, no = (model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" Mary", " John"))
dots = torch.stack([acts[f"L{layer}.result"][0] @ (U[:, yes] - U[:, no]) for layer in range(5)])
shares = dots / acts["ln_final_scale"][0]
"""
LESSONS = [
    Lesson("settled_layers", "[settled(*one) for one in questions.items()]",
           {"[settled(*one) + 1 for one in questions.items()]": "earlier than that|whole number from 0 to 5",
            "[0, 0, 0]": "tokens are likelier",
            "[4, 4, 4]": "first earlier",
            "2": "One layer for each of the 3",
            "[settled(*one) for one in questions.items()][:2]": "One layer for each of the 3",
            "[1.5, 3, 3]": "whole number"},
           secrets=("layer 3", "[1, 3", "[1]"), setup=QUESTIONS, args="model, questions"),
    Lesson("head_shares", "shares",
           {"-shares": "signs are not",
            "dots": "times too large",
            "shares[None]": r"take \[0\]",
            "shares.T": "another order",
            'hl.lens(model, story, "L*H*", norm="own", **asked).values': "by itself",
            'hl.lens(model, story, "L*H*", norm="frozen", answer=" Mary", positions="last").values': "right token's logit",
            'hl.lens(model, story, "L*H*", norm="frozen", **{**asked, "positions": 3}).values': "other numbers",
            "float('nan') * shares": "not finite"},
           secrets=("2.23", "L4H1"), setup=SHARES, args='model, story, " Mary", " John"'),
    Lesson("confidently_wrong", '("The list is Tuesday, Wednesday,", 0)',
           {'("The list is Tuesday, Wednesday,", -1)': "is the model itself",
            '("The capital of France is", 3)': "is what the model says",
            '("Mary was tired, so", 2)': "as in the text",
            '("The key to the cabinet", 1)': "only|not sure",
            '("The guard from the windows", 3)': "not sure",
            '("The capital of France is", 9)': "layer",
            '"The capital of France is"': "A prompt and a layer"},
           secrets=("Thursday", "White Tower")),
]
