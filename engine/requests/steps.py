"""The steps of a codec that change a text character by character, each with its way back."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ft_audit.engine.requests.alphabets import ALPHABETS, AlphabetName, rotate

MAX_MAPPED = 512

Character = Annotated[str, Field(min_length=1, max_length=1)]


class Step(BaseModel):
    """One step; `encode` goes from plain to cipher, `decode` back."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Substitute(Step):
    """Each character by another. What is not in the mapping stays; a way back is clear where the ciphers of
    the mapped characters are not left as plain ones."""

    step: Literal["substitute"] = "substitute"
    mapping: dict[Character, Character] = Field(description="Plain to cipher.", max_length=MAX_MAPPED)

    @model_validator(mode="after")
    def _reversible(self) -> "Substitute":
        if len(set(self.mapping.values())) < len(self.mapping):
            raise ValueError("two plain characters have the same cipher; a substitution must have a way back")
        return self

    def encode(self, text: str) -> str:
        return text.translate({ord(plain): cipher for plain, cipher in self.mapping.items()})

    def decode(self, text: str) -> str:
        return text.translate({ord(cipher): plain for plain, cipher in self.mapping.items()})


class Join(Step):
    """A separator between every two characters."""

    step: Literal["join"] = "join"
    separator: str = Field(min_length=1, max_length=8)

    def encode(self, text: str) -> str:
        return self.separator.join(text)

    def decode(self, text: str) -> str:
        """Return the characters between separators; where those do not alternate, all but the separators."""
        period = 1 + len(self.separator)
        characters = text[::period]
        return characters if self.encode(characters) == text else text.replace(self.separator, "")


class Case(Step):
    """All in one case. The way back leaves it, as nothing says what the case was."""

    step: Literal["case"] = "case"
    to: Literal["lower", "upper"]

    def encode(self, text: str) -> str:
        return text.lower() if self.to == "lower" else text.upper()

    def decode(self, text: str) -> str:
        return text


class Reverse(Step):
    """The text back to front: all of it, the order of its words, or the letters in each word."""

    step: Literal["reverse"] = "reverse"
    unit: Literal["text", "words", "letters"] = "text"

    def encode(self, text: str) -> str:
        if self.unit == "text":
            return text[::-1]
        if self.unit == "words":
            return " ".join(text.split()[::-1])
        return "\n".join(" ".join(word[::-1] for word in line.split(" ")) for line in text.split("\n"))

    def decode(self, text: str) -> str:
        return self.encode(text)


class Rotate(Step):
    """Latin letters moved on in the alphabet."""

    step: Literal["rotate"] = "rotate"
    shift: int = Field(ge=1, le=25)

    def encode(self, text: str) -> str:
        return rotate(text, self.shift)

    def decode(self, text: str) -> str:
        return rotate(text, -self.shift)


class Write(Step):
    """The text in another alphabet."""

    step: Literal["write"] = "write"
    alphabet: AlphabetName

    def encode(self, text: str) -> str:
        return ALPHABETS[self.alphabet].write(text)

    def decode(self, text: str) -> str:
        """Raise DataError where the text is not so written."""
        return ALPHABETS[self.alphabet].read(text)


class Hide(Step):
    """Each word of the message, or each letter, at one place of a carrier text; the rest says nothing.

    `line_last`, `line_first`: a word a line. `nth_word`: every `period`-th word, after `offset` others.
    `line_letters`, `word_letters`: a letter at the beginning of each line, of each word.
    """

    step: Literal["hide"] = "hide"
    place: Literal["line_last", "line_first", "nth_word", "line_letters", "word_letters"]
    period: int = Field(2, ge=2, le=12, description="Of `nth_word`.")
    offset: int = Field(0, ge=0, le=11, description="Of `nth_word`.")
    carrier: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        (), max_length=256, description="Texts that fill a line beside its word, or words, in turn."
    )

    @field_validator("carrier")
    @classmethod
    def _on_one_line(cls, carrier: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(" ".join(text.split()) for text in carrier)

    def encode(self, text: str) -> str:
        words = text.split()
        if self.place == "line_last":
            return "\n".join(f"{self._filler(i)} {word}".strip() for i, word in enumerate(words))
        if self.place == "line_first":
            return "\n".join(f"{word} {self._filler(i)}".strip() for i, word in enumerate(words))
        if self.place == "nth_word":
            return self._spread(words)
        letters = [char for word in words for char in word]
        between = "\n" if self.place == "line_letters" else " "
        begins: dict[str, list[str]] = {}
        for text in self.carrier:
            begins.setdefault(text[:1].lower(), []).append(text)
        fitting = (begins.get(char.lower(), [char]) for char in letters)
        return between.join(choices[place % len(choices)] for place, choices in enumerate(fitting))

    def decode(self, text: str) -> str:
        return " ".join(self.units(text)) if self.by_words else "".join(self.units(text))

    @property
    def by_words(self) -> bool:
        """Whether a unit of the message is a word; else a letter."""
        return self.place in ("line_last", "line_first", "nth_word")

    def units(self, text: str) -> list[str]:
        """Return the words or letters of the message."""
        if self.place == "nth_word":
            return text.split()[self.offset :: self.period]
        if self.place == "word_letters":
            return [word[0] for word in text.split()]
        lines = [line.split() for line in text.split("\n") if line.strip()]
        if self.place == "line_letters":
            return [line[0][0] for line in lines]
        return [line[-1 if self.place == "line_last" else 0] for line in lines]

    def _filler(self, place: int) -> str:
        return self.carrier[place % len(self.carrier)] if self.carrier else "and"

    def _spread(self, words: list[str]) -> str:
        fillers = [word for text in self.carrier for word in text.split()] or ["and"]
        total = self.offset + self.period * len(words) if words else 0
        spread = [fillers[place % len(fillers)] for place in range(total)]
        spread[self.offset :: self.period] = words
        return " ".join(spread)
