"""English letters and letter pairs, for where the reference texts are silent.

Shares in per cent of all letters and of all pairs within words, from Peter Norvig, English Letter Frequency
Counts: Mayzner Revisited (2012), counted in the Google Books corpus; the fifty most common pairs.
"""

LETTERS = {
    "e": 12.49, "t": 9.28, "a": 8.04, "o": 7.64, "i": 7.57, "n": 7.23, "s": 6.51, "r": 6.28, "h": 5.05,
    "l": 4.07, "d": 3.82, "c": 3.34, "u": 2.73, "m": 2.51, "f": 2.40, "p": 2.14, "g": 1.87, "w": 1.68,
    "y": 1.66, "b": 1.48, "v": 1.05, "k": 0.54, "x": 0.23, "j": 0.16, "q": 0.12, "z": 0.09,
}  # fmt: skip

PAIRS = {
    "th": 3.56, "he": 3.07, "in": 2.43, "er": 2.05, "an": 1.99, "re": 1.85, "on": 1.76, "at": 1.49,
    "en": 1.45, "nd": 1.35, "ti": 1.34, "es": 1.34, "or": 1.28, "te": 1.20, "of": 1.17, "ed": 1.17,
    "is": 1.13, "it": 1.12, "al": 1.09, "ar": 1.07, "st": 1.05, "to": 1.04, "nt": 1.04, "ng": 0.95,
    "se": 0.93, "ha": 0.93, "as": 0.87, "ou": 0.87, "io": 0.83, "le": 0.83, "ve": 0.83, "co": 0.79,
    "me": 0.79, "de": 0.76, "hi": 0.76, "ri": 0.73, "ro": 0.73, "ic": 0.70, "ne": 0.69, "ea": 0.69,
    "ra": 0.69, "ce": 0.65, "li": 0.62, "ch": 0.60, "ll": 0.58, "be": 0.58, "ma": 0.57, "si": 0.55,
    "om": 0.55, "ur": 0.54,
}  # fmt: skip
