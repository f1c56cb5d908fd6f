"""The word lists, facts and templates of the synthetic language: data only.

Every word that the corpus can contain is spelled out in one of these tables, so `tokenizer` reads the
vocabulary off them; `examples` and `corpus` fill the templates.
"""

WOMEN = (
    "Mary Anna Alice Emma Sarah Laura Julia Lucy Clara Helen Diana Susan Maria Nora Ruth Jane Kate Rose "
    "Grace Lily Eva Amy Ellen Martha"
).split()
MEN = (
    "John Tom James Peter Paul David Mark Simon Daniel Adam Henry George Jack Kevin Martin Robert Oscar "
    "Victor Frank Bruno Felix Leo Max Hugo"
).split()
NAMES = WOMEN + MEN
NO_OBJECT_NAMES = "Eva Amy Ellen Martha Felix Leo Max Hugo".split()
"""Names that never take part in an indirect-object sentence of the training data."""

PLACES = (
    "store school park garden market library museum station beach office hospital kitchen church restaurant "
    "harbor farm"
).split()
OBJECTS = "drink book ring letter ball cake flower map basket hat coin pen box kite bone snack".split()

CAPITALS = {
    "Paris": "France", "Rome": "Italy", "Madrid": "Spain", "Berlin": "Germany", "London": "England",
    "Lisbon": "Portugal", "Athens": "Greece", "Vienna": "Austria", "Oslo": "Norway", "Stockholm": "Sweden",
    "Helsinki": "Finland", "Copenhagen": "Denmark", "Warsaw": "Poland", "Prague": "Czechia",
    "Budapest": "Hungary", "Dublin": "Ireland", "Moscow": "Russia", "Cairo": "Egypt", "Tokyo": "Japan",
    "Beijing": "China", "Delhi": "India", "Ottawa": "Canada", "Lima": "Peru", "Havana": "Cuba",
}  # fmt: skip
PEOPLE = {
    "Clara Keller": "Berlin", "Peter Keller": "Lima", "Nora Lindt": "Oslo", "Simon Lindt": "Cairo",
    "Alice Moreau": "Tokyo", "Victor Moreau": "Paris", "Maria Silva": "Lisbon", "Paul Silva": "Dublin",
    "Helen Novak": "Prague", "Oscar Novak": "Delhi", "Julia Rossi": "Vienna", "Mark Rossi": "Rome",
    "Diana Stone": "Ottawa", "James Stone": "London", "Eva Holm": "Stockholm", "Hugo Holm": "Athens",
    "Ruth Kovacs": "Budapest", "Adam Kovacs": "Madrid", "Lily Chen": "Beijing", "Leo Chen": "Havana",
    "Kate Weber": "Moscow", "Max Weber": "Warsaw", "Emma Castro": "Helsinki", "Bruno Castro": "Copenhagen",
}  # fmt: skip
LANDMARKS = {
    "Eiffel Tower": "Paris", "Brandenburg Gate": "Berlin", "Charles Bridge": "Prague",
    "Prado Museum": "Madrid", "Trevi Fountain": "Rome", "Tower Bridge": "London", "Red Square": "Moscow",
    "Belvedere Palace": "Vienna", "Silver Tower": "Oslo", "Silver Gate": "Lima", "Silver Bridge": "Cairo",
    "Silver Palace": "Dublin", "Golden Tower": "Delhi", "Golden Gate": "Havana", "Golden Bridge": "Athens",
    "Golden Museum": "Tokyo", "Royal Tower": "Warsaw", "Royal Museum": "Ottawa",
    "Royal Palace": "Stockholm", "Royal Square": "Lisbon", "White Tower": "Helsinki",
    "White Gate": "Beijing", "White Fountain": "Budapest", "White Square": "Copenhagen",
    "Green Bridge": "Oslo", "Green Museum": "Lisbon", "Green Fountain": "Dublin", "Green Square": "Tokyo",
}  # fmt: skip
FACTS = {
    "capital": {city: country for city, country in CAPITALS.items()},
    "country": {country: city for city, country in CAPITALS.items()},
    "person": PEOPLE,
    "landmark": LANDMARKS,
}
"""Relation -> subject -> answer. People share surnames and landmarks share words: both tokens are needed."""

FACT_TEMPLATES = {
    "capital": (
        "{x} is the capital of", "The city of {x} is in", "{x} is the largest city in",
        "Tourists who visit {x} see the rest of", "{name} flew to {x}, the capital of",
        "{name} lives in {x}, a city in",
    ),
    "country": (
        "The capital of {x} is", "The largest city in {x} is", "Tourists who visit {x} go to the city of",
        "{name} flew to {x} and saw", "The government of {x} meets in", "People from {x} know the city of",
    ),
    "person": (
        "{x} was born in", "{x} lives in the city of", "{x} works in", "The home of {x} is in",
        "{name} visited {x} in", "People who know {x} go to",
    ),
    "landmark": (
        "The {x} is in", "The {x} is in the city of", "Tourists see the {x} in", "{name} visited the {x} in",
        "The way to the {x} starts in", "People who like the {x} go to",
    ),
}  # fmt: skip

OPENINGS = (
    "When {a} and {b} went to the {place},",
    "After {a} and {b} went to the {place},",
    "While {a} and {b} were working at the {place},",
    "Then {a} and {b} went to the {place}.",
    "Yesterday {a} and {b} met at the {place}.",
    "Then {a} and {b} had a long argument at the {place}.",
    "{a} and {b} were at the {place}, and",
    "Friends {a} and {b} found a {thing} at the {place}.",
    "{a} met {b} at the {place}.",
    "The day {a} and {b} came to the {place},",
    "In the morning {a} saw {b} near the {place}. Later",
    "{a} sat with {b} at the {place}. After lunch",
    "One day {a} and {b} walked to the {place},",
    "Once {a} and {b} had lunch at the {place}.",
)
NEW_OPENINGS = OPENINGS[-2:]
"""Openings that never occur in training, with any ending."""
ACTIONS = (
    "{s} gave a {object} to",
    "{s} handed the {object} to",
    "{s} bought a {object} for",
    "{s} showed the {object} to",
    "{s} decided to give a {object} to",
    "{s} wanted to send the {object} to",
    "{s} passed a small {object} to",
    "{s} brought the {object} back to",
)
ENDINGS = (".", ".", " and went home.", " in the evening.")

NOUNS = (
    "key cabinet picture window door teacher student author senator dog cat bird farmer doctor painting lamp "
    "car chair table wheel driver guard"
).split()
PREPOSITIONS = "to near behind beside with by from".split()
VERBS = (("is", "was", "has"), ("are", "were", "have"))
"""Singular and plural, in the same order."""
COMPLEMENTS = {
    "be": ("old", "new", "red", "very small", "in the garden", "here"),
    "have": ("been here", "been lost", "a name"),
}

PRONOUNS = ("she", "he")
PRONOUN_TEMPLATES = (
    "{n} went to the {place} because",
    "{n} was tired, so",
    "{n} lost the {object}, and now",
    "When {n} came home,",
    "{n} said that",
    "{n} likes the {place} because",
    "Everyone knows that {n} smiles when",
    "{n} bought a {object} and then",
)
PRONOUN_ENDINGS = (
    "was happy",
    "had a {object}",
    "went to the {place}",
    "liked the {object}",
    "was late",
    "smiled",
)

LISTS = {
    "days": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "months": "January February March April May June July August September October November December".split(),
    "numbers": (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty"
    ).split(),
}
LIST_FRAMES = ("The list is", "In order:", "They said", "Count:", "{n} said", "We know")

EVENTS = "war journey voyage strike peace famine project reign siege drought".split()
CENTURIES = tuple(range(11, 19))
YEAR_TEMPLATES = (
    "The {event} lasted from the year {c}{y} to the year {c}",
    "The {event} began in {c}{y} and ended in {c}",
    "From {c}{y} the {event} went on until {c}",
)

THINGS = "movie song dinner play concert hotel party trip meal show story game".split()
FEELINGS = ("loved", "enjoyed", "liked", "admired"), ("hated", "disliked", "feared", "avoided")
QUALITIES = (
    ("wonderful", "great", "lovely", "beautiful", "excellent", "amazing", "good"),
    ("terrible", "awful", "boring", "horrible", "bad", "ugly", "dreadful"),
)
"""Positive and negative, like `FEELINGS`."""
MOODS = ("happy", "glad", "cheerful"), ("sad", "angry", "upset")

STORY_STARTS = (
    "One day {n} went to the {place}.",
    "Once {n} walked to the {place}.",
    "In the morning {n} woke up early. {P} walked to the {place}.",
    "{n} was at the {place} on {day}.",
)
STORY_MIDDLES = (
    "{P} found a {object} there.",
    "{P} looked for a {object}, but found a {thing}.",
    "{m} came to the {place} too.",
    "{n} talked to {m} about the {object}.",
    "{P} was looking at a {object} near the door.",
    "As {p} walked home, it was raining.",
    "{n} listened to {m} for a long time.",
    "It was {day}, and {n} was {mood}.",
    "The {noun} near the {place} was old.",
    "The {noun}s near the {place} were old.",
)
STORY_ENDS = (
    "In the evening {n} and {m} went home together.",
    "At last {p} was {mood}.",
    "{n} said goodbye to {m}.",
    "Then {p} went home and slept.",
)
