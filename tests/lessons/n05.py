"""Answers to the exercises of tutorial 05."""

from lessons import Lesson

PAIRS = """
STORY = "When {} and {} went to the store, {} gave a drink to"
names = [("Mary", "John"), ("Anna", "Tom")]
cases = [(x, y, giver) for a, b in names for x, y in ((a, b), (b, a)) for giver in (a, b)]
receivers = [x if giver == y else y for x, y, giver in cases]
clean = [STORY.format(*case) for case in cases]
corrupt = [STORY.format(x, y, receiver) for (x, y, _), receiver in zip(cases, receivers)]
right, wrong = [f" {name}" for name in receivers], [f" {giver}" for *_, giver in cases]
said = dict(answer=right, wrong=wrong)
swap = {"Mary": "Anna", "John": "Tom", "Anna": "Mary", "Tom": "John"}
other = [" ".join(swap.get(word, word) for word in prompt.split(" ")) for prompt in clean]
"""
MAPS = PAIRS + """
noise, denoise = (hl.sweep(model, clean, other, "L*H*", metric="logit", mode=mode, answer=right)
                  for mode in ("noise", "denoise"))
"""
SEARCH = PAIRS + """
def kept(heads):
    lines = ["prompt clean = {clean}", "prompt other = {other}", "answer {right}", "metric prob", "run circuit on clean:",
             f"    patch L*H* except {', '.join(heads)} from other"]
    return model.run("\\n".join(lines), clean=clean, other=other, right=right).metrics["circuit"]["prob"]
bring = hl.attribute(model, clean, "L*H*", method="dla", answer=right, wrong=" Paul", positions="last").top(8)
choose = hl.sweep(model, clean, corrupt, "L*H*", **said).top(3)
every = [f"L{place['layer']}H{place['head']}" for place, _ in [*choose, *bring]]
found = list(every)
while True:
    left = {gone: kept([head for head in found if head != gone]) for gone in found}
    idlest = max(left, key=left.get)
    if left[idlest] < 0.91:
        break
    found.remove(idlest)
"""
CLEAN = '"While Sarah and James were working at the park, James handed the book to"'
LESSONS = [
    Lesson("corrupted_prompt", '"While Sarah and James were working at the park, Sarah handed the book to"',
           {CLEAN: "clean prompt itself",
            '"While James and Sarah were working at the park, Sarah handed the book to"': "3 tokens differ",
            '"While Sarah and James were working at the park, Anna handed the book to"': "no third",
            '"While Sarah and James were working at the school, James handed the book to"': "no third",
            '"While James and James were working at the park, James handed the book to"': "no longer occurs",
            '"While Sarah and James were working at the park, Sarah wanted to send the book to"': "position with position",
            "3": "text is asked"},
           secrets=("Sarah handed",), args=f'model, {CLEAN}, " Sarah", " James"'),
    Lesson("noised_heads", "noise",
           {"denoise.values": "other way round",
            "1 - noise.values": "what is lost",
            "1 - denoise.values": "one minus the map",
            "noise.raw.values": "logits",
            "noise.raw.values - noise.ends[1]": "changes",
            "noise.values.T": "another order",
            "noise.values[None]": r"take \[0\]",
            "noise.values ** 2": "other numbers"},
           secrets=("L0H1",), setup=MAPS, args="model, clean, other, right"),
    Lesson("small_circuit", "found",
           {'["L0H1", "L0H5", "L0H0"]': "needs is not among",
            "every": "could each go",
            '"L*H*"': "One head",
            "[(layer, head) for layer in range(5) for head in range(6)]": "more than half",
            "found[1:]": "needs is not among",
            "[]": "empty",
            '["L0H9"]': "6 heads"},
           secrets=("L1H3", "L4H1", "L0H5"), setup=SEARCH, args="model, clean, other, right"),
]
