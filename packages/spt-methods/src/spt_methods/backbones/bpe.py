"""Byte-pair encoding of text, as CLIP's: lower case, words that end in ``</w>``, start and end tokens.

Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", ACL 2016, algorithm 1.
https://arxiv.org/abs/1508.07909; on bytes, with the rules of CLIP
(https://arxiv.org/abs/2103.00020, section 2.4), official code https://github.com/openai/CLIP,
``clip/simple_tokenizer.py``.
"""

from __future__ import annotations

import gzip
import html
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

BUNDLED = Path(__file__).parent / "wordnet_bpe.txt"
END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")
CACHED_WORDS = 100_000

Pair = tuple[str, str]
Word = tuple[str, ...]


def _printable_letters() -> dict[int, str]:
    """A printable character for each byte: itself where it is printable in Latin-1, else one from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    return {**letters, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


LETTERS = _printable_letters()


class BytePairTokenizer:
    """Turns texts into rows of token numbers, framed by a start and an end token.

    The numbers are CLIP's: 256 bytes, 256 bytes at the end of a word, one number per merge, start, end.

    Args:
        merges: Pairs in the order of their merging. Without them, the bundled ones, learned from the
            names and definitions of WordNet's nouns that stand for ImageNet-22k's classes.
        context_length: Tokens of a row, start and end included. Longer texts are cut before the end
            token; after it, rows are filled up with further end tokens.

    Attributes:
        vocab_size: How many numbers there are.
        start_token: Number of the start token.
        end_token: Number of the end token, the largest.

    Raises:
        ValueError: If ``context_length`` is below 3.

    Note:
        Letters and digits are those of Python's ``re``, and texts are not repaired by ``ftfy``: neither
        package is needed. Filling up with the end token instead of 0 changes nothing for a causal
        transformer that reads the first end token, and gives one that reads the last place (SigLIP)
        a token of its own.

    Example:
        >>> tokenizer = BytePairTokenizer(context_length=8)
        >>> rows = tokenizer(["a photo of a dog", "a photo of a cat"])
        >>> rows.shape, (rows[0] == rows[1]).tolist()
        (torch.Size([2, 8]), [True, True, True, True, True, True, False, True])
    """

    def __init__(self, merges: Sequence[Pair] | None = None, context_length: int = 77) -> None:
        if context_length < 3:
            raise ValueError(f"`context_length` must be at least 3, got {context_length}.")
        self.context_length = context_length
        self.merges = [*(read_merges(BUNDLED) if merges is None else merges)]
        letters = [*LETTERS.values()]
        words = [*letters, *(c + END_OF_WORD for c in letters), *map("".join, self.merges)]
        self.words = [*words, START, END]
        self.vocab_size = len(self.words)
        self.start_token, self.end_token = self.vocab_size - 2, self.vocab_size - 1
        self._numbers = {word: number for number, word in enumerate(self.words)}
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._known: dict[str, list[int]] = {}

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Token numbers of texts, int64 ``(N, context_length)``; ``N`` is 1 for a single string."""
        texts = [texts] if isinstance(texts, str) else texts
        rows = torch.full((len(texts), self.context_length), self.end_token)
        for row, text in zip(rows, texts, strict=True):
            numbers = [self.start_token, *self.encode(text)[: self.context_length - 2]]
            row[: len(numbers)] = torch.tensor(numbers)
        return rows

    def encode(self, text: str) -> list[int]:
        """The numbers of a text, without start, end and padding."""
        return [number for word in words_of(text) for number in self._encode_word(word)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers, words separated by single spaces; start and end tokens are left out."""
        joined = "".join(self.words[n] for n in numbers if n < self.start_token)
        back = {letter: byte for byte, letter in LETTERS.items()}
        parts = (bytes(back[c] for c in word) for word in joined.split(END_OF_WORD))
        return " ".join(part.decode("utf-8", errors="replace") for part in parts).strip()

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, context_length: int = 77
    ) -> BytePairTokenizer:
        """Learn the merges of a vocabulary from texts; fewer if no pair occurs twice any more."""
        return cls(learn_merges(texts, vocab_size - 514), context_length)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the merges, one a line; :func:`read_merges` reads them."""
        path = Path(path)
        text = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in self.merges)
        part = path.with_name(f"{path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def _encode_word(self, word: str) -> list[int]:
        if word not in self._known:
            if len(self._known) >= CACHED_WORDS:
                self._known.clear()
            self._known[word] = [self._numbers[part] for part in self._merged(_spelled(word))]
        return self._known[word]

    def _merged(self, parts: Word) -> Word:
        """The earliest merge that applies, everywhere in the word, until none does."""
        while len(parts) > 1:
            pair = min(_pairs(parts), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if pair not in self._ranks:
                break
            parts = _merge(parts, pair)
        return parts


def read_merges(path: str | os.PathLike[str]) -> list[Pair]:
    """Merges from a text file (``.gz`` too), one pair a line after a first line that tells of them.

    Of the official code's file, CLIP takes the first 48,894.

    Raises:
        ValueError: If a line does not hold two words.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        head, *lines = file.read().splitlines()
    pairs = [line.split(" ") for line in lines if line]
    wrong = [" ".join(pair) for pair in pairs if len(pair) != 2]
    if wrong:
        raise ValueError(f"{path} must hold two words a line after {head!r}, got {wrong[0]!r}.")
    return [(a, b) for a, b in pairs]


def learn_merges(texts: Iterable[str], number: int) -> list[Pair]:
    """The most frequent pair, merged everywhere, again and again.

    Args:
        texts: Any number.
        number: Merges to learn at most; a pair that occurs once is not merged.

    Returns:
        Pairs in the order of merging. Among equally frequent ones the first in the order of characters.

    Example:
        >>> learn_merges(["low low lower"], 2)
        [('l', 'o'), ('lo', 'w</w>')]
    """
    counts = Counter(word for text in texts for word in words_of(text))
    words = [_spelled(word) for word in counts]
    often = [*counts.values()]
    total: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        _count(word, often[index], index, total, places)
    merges: list[Pair] = []
    while len(merges) < number and total:
        pair = min(total, key=lambda pair: (-total[pair], pair))
        if total[pair] < 2:
            break
        merges.append(pair)
        for index in places.pop(pair):
            for old in _pairs(words[index]):
                total[old] -= often[index]
                if total[old] <= 0:
                    del total[old]
            words[index] = _merge(words[index], pair)
            _count(words[index], often[index], index, total, places)
    return merges


def words_of(text: str) -> list[str]:
    """The words of a text as CLIP separates them: letters, single digits, other signs; lower case."""
    plain = html.unescape(html.unescape(text))
    return WORD.findall(plain.lower())


def _count(
    word: Word, times: int, index: int, total: Counter[Pair], places: defaultdict[Pair, set[int]]
) -> None:
    for pair in _pairs(word):
        total[pair] += times
        places[pair].add(index)


def _pairs(word: Word) -> list[Pair]:
    return [*pairwise(word)]


def _merge(word: Word, pair: Pair) -> Word:
    out: list[str] = []
    index = 0
    while index < len(word):
        joined = word[index : index + 2] == pair
        out.append("".join(pair) if joined else word[index])
        index += 2 if joined else 1
    return tuple(out)


def _spelled(word: str) -> Word:
    """A word as letters for its bytes, the last one marked."""
    spelled = [LETTERS[byte] for byte in word.encode("utf-8")]
    return (*spelled[:-1], spelled[-1] + END_OF_WORD)
