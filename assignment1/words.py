"""The words for expressions and for parts of a data set, as files, folders and tables spell them.

FER-2013's labels are 0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral; a word
always wins over a number, because other data sets number the same seven in other orders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# the order of FER-2013's labels 0..6
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
IN_ORDER = ", ".join(f"{number} {name}" for number, name in enumerate(CLASSES))
SPELLINGS = {
    "angry": ("anger", "ang"),
    "disgust": ("disgusted", "dis"),
    "fear": ("fearful", "afraid", "scared", "fea"),
    "happy": ("happiness", "joy", "joyful", "hap"),
    "sad": ("sadness",),
    "surprise": ("surprised", "sur"),
    "neutral": ("neutrality", "normal", "neu"),
}
LABELS = {word: number for number, name in enumerate(CLASSES) for word in (name, *SPELLINGS[name])}

# what CK+48, FER+ and AffectNet have beside the seven; such faces are left out and counted
LEFT_OUT = -1
OTHERS = {
    "contempt": "contempt",
    "contemptuous": "contempt",
    "unknown": "unknown",
    "nf": "no face",
    "notface": "no face",
    "noface": "no face",
}
CONTEMPT = 7  # in the tables that go on after FER-2013's 0..6

PARTS = {
    "training": "train",
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "publictest": "test",
    "testing": "test",
    "test": "test",
    "privatetest": "private",
    "private": "private",
}
PART_WORDS = "Training, PublicTest, PrivateTest, train, val, valid, validation, test, private"


def counts_from_one(labels: Iterable[int]) -> bool:
    """Whether numbers 1..6 without a 0 look like another order of classes than FER-2013's."""
    return set(labels) - {LEFT_OUT} == set(range(1, len(CLASSES)))


def letters(text: str) -> str:
    """The letters a to z of a text, in lower case: "0_Angry" -> "angry"."""
    return re.sub("[^a-z]", "", text.lower())


def label_of(word: str) -> int | None:
    """The label 0..6 of a word, LEFT_OUT for one of OTHERS, None for no expression at all."""
    plain = letters(word)
    return LEFT_OUT if plain in OTHERS else LABELS.get(plain)


def digit_of(word: str) -> int | None:
    """The number that a folder's or a cell's text is, or None."""
    text = word.strip()
    whole = re.fullmatch(r"(\d{1,3})(\.0*)?", text, re.ASCII)
    return int(whole[1]) if whole else None


def part_of(word: str) -> str | None:
    """The part that a word names ("train" | "validation" | "test" | "private"), or None.

    Also as in "FER2013Valid", "train_set" and "test images".
    """
    plain = re.sub("^fer(plus)?", "", letters(word))
    return PARTS.get(plain) or PARTS.get(re.sub("(dataset|data|set|images|faces)$", "", plain))
