"""Texts for scoring and embedding, made for these tests: 100 items of a context with four endings, in the manner of
HellaSwag, and some sentences. Contexts end with and without space, endings begin with and without it, and some have
letters beyond ASCII, since all of that decides where a tokenizer puts the border."""

PEOPLE = ["A woman", "The old man", "My neighbour Zoë", "Someone in a blue coat"]

# What is done, what follows.
SCENES = [
    ("fills a kettle and puts it on the stove.", "When the water boils, tea is made."),
    ("kneads dough on a floured table.", "The dough is left to rise, then baked into bread."),
    ("sits down at the piano and opens a book of music.", "A slow melody begins."),
    ("takes a bicycle out of the shed and pumps up its tires.", "The ride goes along the river."),
    ("hammers a nail into the wall.", "A picture is hung on it."),
    ("plants tomato seeds in small pots.", "The pots are watered and put in the sun."),
    ("opens an umbrella at the door of the café.", "It has started to rain."),
    ("ties a rope around a tree and pulls it tight.", "A hammock hangs between the two trunks."),
    ("counts 12 coins and puts them on the counter.", "The baker hands over two rolls."),
    ("reads a letter twice and folds it up.", "It goes back into its envelope."),
    ("saddles a horse and leads it out of the stable.", "They trot across the meadow."),
    ("writes `for i in range(10):` on the board.", "The next line prints i."),
    ("washes the car with a sponge and soap.", "At last it is rinsed and dried."),
    ("throws a line from the pier and waits.", "After an hour, a fish bites."),
    ("sharpens a pencil and takes a sheet of paper.", "A small house is drawn."),
    ("puts on skates and steps onto the ice.", "The first turn is a careful one."),
    ("cuts onions, and tears come.", "The onions are fried in butter."),
    ("winds up an old clock.", "It ticks again, three minutes late."),
    ("builds a fire in the camp.", "Potatoes are baked in its embers."),
    ("calls the dog and takes its leash.", "They walk to the park together."),
    ("packs a suitcase the night before the journey.", "In the morning a taxi comes to the door."),
    ("climbs a ladder with a bucket of paint.", "The gutter is painted green."),
    ("looks through a telescope at the moon.", "Its craters are sharp and grey."),
    ("shuffles a deck of cards.", "Each player is dealt five of them."),
    ("threads a needle under the lamp.", "The button is sewn on again."),
]

SENTENCES = [
    "The capital of France is Paris.",
    "Paris is where the government of France sits.",
    "Water boils at 100 degrees.",
    "def add(a, b):\n    return a + b\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "A page of the cache has sixty-four tokens, so this sentence, which goes on and on about nothing in particular and "
    "mentions kettles, bicycles, horses, telescopes and needles one after the other, has to be a good deal longer than "
    "that to be computed in more than one of them, whatever the vocabulary may be that it is cut into.",
]


def items():
    """[(context, [ending, …], index of the right one)]"""
    made = []
    for number in range(4 * len(SCENES)):
        scene, person = number % len(SCENES), PEOPLE[number // len(SCENES)]
        done, follows = SCENES[scene]
        others = [SCENES[(scene + step) % len(SCENES)][1] for step in (3, 7, 12)]
        right = number % 4
        endings = others[:right] + [follows] + others[right:]
        context = f"{person} {done}"
        if number % 3 == 0:
            endings = [" " + ending for ending in endings]
        elif number % 3 == 1:
            context += " "
        else:
            context += "\n\n"
        made.append((context, endings, right))
    return made
