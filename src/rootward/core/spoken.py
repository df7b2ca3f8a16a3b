"""Bytes as words, one a byte, to read a hash aloud and to write down what was read.

256 English words of 4 to 8 letters, sorted. Any two differ in at least three letters (put in, left out or changed), in
their first four letters, and in how they sound, so that a slip gives a word that is none, not another one. The words
say the bytes and nothing more: whoever compares reads all of them in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from rootward.core.problems import Problem, Reason, shown

MOST = 128  # words that are read at once

WORDS = tuple(
    (
        "abbey acorn agent album almond anchor angle anvil apron armor artist atlas autumn badge ballet bamboo banjo "
        "barrel beacon beaver bellows bishop border bottle breeze brick bucket bundle butter cactus camel canary "
        "canyon cargo carpet castle cavern cedar cello cement cherry chimney circus clover cobalt coffee collar "
        "copper cotton cowboy cradle cymbal dairy dawn decade delta denim desert diesel dinner doctor donkey dragon "
        "drawer drizzle drummer echo elbow ember engine estate evening fabric falcon family feather fender fiddle "
        "figure firefly flute fossil freight frost galaxy garden garlic geyser giant giraffe gospel granite grape "
        "grocer hammer harvest helmet hexagon history holiday hotel humble husky hydrant igloo iguana index infant "
        "insect iris island ivory jaguar jersey jigsaw juniper jury kayak kernel kiosk labor lacquer ladder lagoon "
        "laptop laundry legend lemon lilac liquid lizard lobster lunar lyric machine magnet mammoth marble mascot "
        "meadow mercury meteor mitten morning mosaic muffin museum mustard napkin navy needle nozzle nugget nutmeg "
        "nylon oasis object octopus office olive omelet onion optic orbit orchid organ oven palace papaya parrot "
        "pasture pebble pencil penguin picnic pizza poet possum pulley puppet pyramid python quartz quilt quiver "
        "quota rabbit raccoon radish ragtime railway recipe remedy rhubarb ribbon ritual rodeo rubber ruffle runway "
        "rustic sailor salad sandal saturn sausage scooter senate siesta signal silver siren sketch sleigh smoke "
        "snorkel soccer sofa spider sponge stirrup stomach sultan sunset swallow syrup tadpole teacup temple tennis "
        "thunder tomato topaz toucan trumpet tulip tunnel turban unicorn upward vacuum venus vinegar visitor voyage "
        "vulture walrus whisper widow wombat wrench yacht yogurt zero zigzag zodiac"
    ).split(" ")
)
_VALUES = {word: value for value, word in enumerate(WORDS)}


def words_of(data: bytes) -> tuple[str, ...]:
    """One word for each byte: a SHA-256 has 32."""
    return tuple(WORDS[value] for value in data)


def bytes_of(words: Iterable[str]) -> bytes:
    """The inverse of `words_of`; capitals do not matter. Problem RW-FIELD names every word that is none of ours, by its
    place, with the nearest one.
    """
    typed = list(words)
    if len(typed) > MOST:
        raise Problem("RW-FIELD", f"{len(typed)} words are more than the {MOST} that a hash can have.", field="words")
    reasons = list(_wrong(typed))
    if reasons:
        raise Problem.of(reasons)
    return bytes(_VALUES[word.lower()] for word in typed)


def _wrong(typed: list[str]) -> Iterator[Reason]:
    for place, word in enumerate(typed, start=1):
        if word.lower() not in _VALUES:
            near = get_close_matches(word.lower()[:32], WORDS, n=1, cutoff=0.5)
            hint = f" Is it {near[0]}?" if near else ""
            yield Reason("RW-FIELD", f"Word {place}, {shown(word, 32)}, is none of the words.{hint}", "words")
