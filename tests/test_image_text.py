"""CLIP and SigLIP learn to name the bundled images by captions: far above chance, zero-shot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent / "benchmarks" / "image_text.py"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("image_text_benchmark", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_zero_shot_accuracy_rises_far_above_chance(program, name):
    before, after = program.accuracies(name, images=8000)
    assert before < 25  # chance is 10
    assert after > 35


def test_the_captions_name_the_class_in_sentences_that_evaluation_does_not_use(program):
    images, labels = program.load("test")
    assert images.shape == (1000, 1, 28, 28)
    batch = next(iter(program.CaptionedImages(images, labels, 0)))
    assert len(set(batch["text"])) > 20
    for text, label in zip(batch["text"], batch["label"].tolist(), strict=True):
        assert program.CLASSES[label] in text
    assert not set(program.CAPTIONS) & set(program.PROMPTS)
