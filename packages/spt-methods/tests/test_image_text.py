"""CLIP, SigLIP, their text towers and the tokenizer against Hugging Face and the papers' formulas."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from spt_methods import methods
from spt_methods.backbones import (
    BytePairTokenizer,
    HuggingFaceText,
    HuggingFaceTokenizer,
    TextTransformer,
    blocked_future,
)
from spt_methods.backbones.bpe import START, learn_merges, read_merges, words_of
from torch import nn
from torch.nn import functional as F

G = torch.Generator().manual_seed(0)
TEXTS = [
    "A photo of a dog.",
    "two  zebras' stripes,\tin b&amp;w",
    "it's 42°C in Zürich — naïve 日本語 🙂",
    "a_b #hashtag #1 <tag>",
    "",
]


class Encoder(nn.Module):
    num_features = 6

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 6)

    def forward(self, x):
        return torch.tanh(self.linear(x.flatten(1)))


def batch(n=5):
    images = torch.rand(n, 3, 2, 2, generator=G, dtype=torch.float64)
    return {"image": images, "text": TEXTS[:n], "label": torch.arange(n)}


def build(name, **kwargs):
    torch.manual_seed(0)
    sizes = {"text_width": 16, "text_depth": 1, "text_heads": 2, **kwargs}
    return getattr(methods, name)(Encoder(), **sizes).double().train()


# --- the tokenizer -------------------------------------------------------------------------------


def test_the_bundled_tokenizer_gives_the_numbers_of_hugging_faces_clip():
    transformers = pytest.importorskip("transformers")
    ours = BytePairTokenizer(context_length=32)
    assert ours.vocab_size == 4096
    vocab = {word: number for number, word in enumerate(ours.words)}
    theirs = transformers.CLIPTokenizer(vocab=vocab, merges=ours.merges)
    made = HuggingFaceTokenizer(theirs, 32)
    assert made.vocab_size == ours.vocab_size
    plain = [text.replace("&amp;", "&") for text in TEXTS]  # entities are CLIP's own affair
    assert torch.equal(ours(TEXTS), made(plain))


def test_rows_have_start_end_and_one_length():
    tokenizer = BytePairTokenizer(context_length=6)
    rows = tokenizer(["", "dog", "a photo of a very big dog"])
    start, end = tokenizer.start_token, tokenizer.end_token
    assert (start, end) == (4094, 4095)
    assert rows.shape == (3, 6)
    assert rows[0].tolist() == [start, *[end] * 5]
    assert rows[1].tolist() == [start, *tokenizer.encode("dog"), *[end] * 4]
    assert rows[2].tolist() == [start, *tokenizer.encode("a photo of a very big dog")[:4], end]
    assert tokenizer("dog").tolist() == rows[1:2].tolist()
    with pytest.raises(ValueError, match="`context_length` must be at least 3, got 2"):
        BytePairTokenizer(context_length=2)


def test_decoding_gives_the_words_back():
    tokenizer = BytePairTokenizer()
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)[0].tolist()) == " ".join(words_of(text))


def test_common_words_are_one_token_and_unknown_ones_are_parts():
    tokenizer = BytePairTokenizer()
    assert [len(tokenizer.encode(word)) for word in ("plant", "bird", "shoe")] == [1, 1, 1]
    assert len(tokenizer.encode("qzxj")) == 4
    assert START not in [tokenizer.words[n] for n in tokenizer.encode(START)]


def slow_merges(texts, number):
    """Sennrich et al., algorithm 1, counting everything anew for each merge."""
    words = [
        ((*word[:-1], word[-1] + "</w>"), times)
        for word, times in Counter(w for text in texts for w in text.split()).items()
    ]
    merges = []
    for _ in range(number):
        pairs = Counter()
        for word, times in words:
            for pair in pairwise(word):
                pairs[pair] += times
        best = max(pairs.values(), default=0)
        if best < 2:
            break
        a, b = min(pair for pair, times in pairs.items() if times == best)
        merges.append((a, b))
        merged = []
        for word, times in words:
            spaced = f" {' '.join(word)} ".replace(f" {a} {b} ", f" {a}{b} ")
            merged.append((tuple(spaced.split()), times))
        words = merged
    return merges


def test_merges_are_learned_as_the_paper_does():
    texts = [
        "low lower lowest newer wider",
        "new low slow slower snow",
        "the widest snow window",
    ] * 2
    expected = slow_merges(texts, 40)
    assert len(expected) > 20
    assert learn_merges(texts, 40) == expected


def test_a_trained_tokenizer_comes_back_from_its_file(tmp_path):
    trained = BytePairTokenizer.train(["# ## sun moon", "sun moon"], 518)
    assert trained.vocab_size == 518
    trained.save(tmp_path / "merges.txt")
    again = BytePairTokenizer(read_merges(tmp_path / "merges.txt"))
    assert again.words == trained.words
    (tmp_path / "wrong.txt").write_text("#version\na b\nabc\n")
    with pytest.raises(ValueError, match="must hold two words a line .* got 'abc'"):
        read_merges(tmp_path / "wrong.txt")


# --- text towers ---------------------------------------------------------------------------------


def take_weights(ours, theirs):
    """Copy a text model of Hugging Face into ours."""
    layers = theirs.encoder.layers
    own = {
        "token_embedding.weight": theirs.embeddings.token_embedding.weight,
        "pos_embed": theirs.embeddings.position_embedding.weight,
        "norm.weight": theirs.final_layer_norm.weight,
        "norm.bias": theirs.final_layer_norm.bias,
    }
    for i, layer in enumerate(layers):
        for kind in ("weight", "bias"):
            qkv = [getattr(getattr(layer.self_attn, f"{n}_proj"), kind) for n in "qkv"]
            own |= {
                f"blocks.{i}.attn.qkv.{kind}": torch.cat(qkv),
                f"blocks.{i}.attn.proj.{kind}": getattr(layer.self_attn.out_proj, kind),
                f"blocks.{i}.norm_attn.{kind}": getattr(layer.layer_norm1, kind),
                f"blocks.{i}.norm_mlp.{kind}": getattr(layer.layer_norm2, kind),
                f"blocks.{i}.mlp.fc1.{kind}": getattr(layer.mlp.fc1, kind),
                f"blocks.{i}.mlp.fc2.{kind}": getattr(layer.mlp.fc2, kind),
            }
    ours.load_state_dict(own)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_the_text_tower_is_hugging_faces(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}TextConfig")(
        vocab_size=30, hidden_size=16, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=9, hidden_act="gelu", eos_token_id=29,
        bos_token_id=28, pad_token_id=29, projection_size=16, attn_implementation="eager",
    )  # fmt: skip
    model = getattr(transformers, f"{kind}TextModel")(config).double().eval()
    rule = {"causal": False, "pool": "last", "norm_eps": 1e-6} if kind == "Siglip" else {}
    ours = TextTransformer(30, 16, 2, 2, 9, **rule).double()
    take_weights(ours, getattr(model, "text_model", model))
    numbers = torch.tensor([[28, 3, 4, 29, 29, 29, 29, 29, 29], [28, 5, 6, 7, 8, 9, 1, 2, 29]])
    found = ours(numbers)
    expected = model(input_ids=numbers)
    near = {"rtol": 1e-5, "atol": 1e-5}  # their softmax is in float32
    torch.testing.assert_close(ours.tokens(numbers), expected.last_hidden_state, **near)
    if kind == "CLIP":
        torch.testing.assert_close(found, expected.pooler_output, **near)
        torch.testing.assert_close(HuggingFaceText(model)(numbers), found, **near)
    else:
        torch.testing.assert_close(found, expected.last_hidden_state[:, -1], **near)


def test_a_text_model_without_a_pooler_is_averaged_over_its_words():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=9, pad_token_id=0,
    )  # fmt: skip
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    encoder = HuggingFaceText(model, pad_token=0)
    numbers = torch.tensor([[1, 2, 3, 0, 0]])
    torch.testing.assert_close(encoder(numbers), encoder(numbers[:, :3]))
    expected = model(input_ids=numbers[:, :3]).last_hidden_state.mean(1)
    torch.testing.assert_close(encoder(numbers), expected)
    module = build("CLIP", text_encoder=encoder, tokenizer=lambda texts: numbers.repeat(5, 1))
    module.float()({"image": torch.rand(5, 3, 2, 2), "text": TEXTS}, "fit")["loss"].backward()
    assert model.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_a_causal_text_tower_does_not_see_the_future():
    torch.manual_seed(0)
    for causal in (True, False):
        tower = TextTransformer(30, 16, 2, 2, 9, causal=causal).double()
        numbers = torch.randint(0, 29, (2, 9), generator=G)
        changed = numbers.clone()
        changed[:, 5:] = (changed[:, 5:] + 7) % 29
        first, second = tower.tokens(numbers), tower.tokens(changed)
        assert torch.equal(first[:, :5], second[:, :5]) == causal
        assert not torch.allclose(first[:, 5:], second[:, 5:])


def test_the_future_is_blocked_beyond_the_prefix():
    assert blocked_future(3).tolist() == [[False, True, True], [False, False, True], [False] * 3]
    blocked = blocked_future(4, torch.tensor([1, 3, 4]))
    assert blocked.shape == (3, 1, 4, 4)
    assert torch.equal(blocked[0, 0], blocked_future(4))
    assert blocked[1, 0].sum(1).tolist() == [1, 1, 1, 0]
    assert not blocked[2].any()


# --- the methods ---------------------------------------------------------------------------------


def pairs_of(module, state):
    images, texts = (F.normalize(state[k], dim=1) for k in ("image_features", "text_features"))
    return images @ texts.T


def test_clips_loss_is_figure_3_of_the_paper():
    module = build("CLIP", embed_dim=4)
    state = module(batch(), "fit")
    assert state["logit_scale"].item() == pytest.approx(1 / 0.07)
    logits = pairs_of(module, state) * math.exp(module.logit_scale.log_scale.item())
    labels = torch.arange(5)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(state["loss"], expected)
    texts = module.text[1](module.text[0](module.tokenizer(TEXTS)))
    torch.testing.assert_close(state["text_features"], texts)
    projected = state["embedding"] @ module.image_projection.weight.T
    torch.testing.assert_close(state["image_features"], projected)
    assert state["embedding"].shape == (5, 6)
    assert state["image_features"].shape == (5, 4)


def test_clips_scale_is_capped_and_comes_back():
    module = build("CLIP")
    module.logit_scale.log_scale.data.fill_(10.0)
    state = module(batch(), "fit")
    assert state["logit_scale"].item() == pytest.approx(100)
    state["loss"].backward()
    assert module.logit_scale.log_scale.grad != 0


def test_siglips_loss_is_algorithm_1_of_the_paper():
    module = build("SigLIP")
    state = module(batch(), "fit")
    t, b = module.logit_scale.log_scale.exp(), module.logit_bias
    assert (t.item(), b.item()) == (pytest.approx(10), -10)
    logits = pairs_of(module, state) * t + b
    signs = 2 * torch.eye(5, dtype=torch.float64) - 1
    expected = -F.logsigmoid(signs * logits).sum() / 5
    torch.testing.assert_close(state["loss"], expected)
    state["loss"].backward()
    assert module.logit_bias.grad != 0
    assert state["image_features"] is state["embedding"]


@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_tokens_made_in_the_loader_are_taken_and_their_lack_is_named(name):
    module = build(name)
    data = batch()
    expected = module(data, "fit")["loss"]
    tokens = module.tokenizer(data["text"])
    images = {"image": data["image"]}
    torch.testing.assert_close(module({**images, "tokens": tokens}, "fit")["loss"], expected)
    with pytest.raises(
        ValueError, match=rf"{name} trains on images with texts: .* got \['image'\]"
    ):
        module(images, "fit")
    assert "loss" not in module(images, "validate")


def test_a_text_encoder_that_does_not_know_the_tokenizers_tokens_is_refused():
    with pytest.raises(ValueError, match="`vocab_size` is 4096, the text encoder's 30"):
        build("CLIP", text_encoder=TextTransformer(30, 16, 1, 2))
    with pytest.raises(ValueError, match="`context_length` is 77, the text encoder's 9"):
        build("CLIP", text_encoder=TextTransformer(4096, 16, 1, 2, 9))
    with pytest.raises(TypeError, match="`tokenizer` must be callable, got int"):
        build("CLIP", text_encoder=TextTransformer(4096, 16, 1, 2), tokenizer=3)
    with pytest.raises(ValueError, match="function has no `vocab_size` and `context_length`"):
        build("SigLIP", tokenizer=lambda texts: torch.zeros(1, 1))
    tower = TextTransformer(30, 16, 1, 2, 4)
    with pytest.raises(ValueError, match="Texts have 5 tokens, the text tower has 4 positions"):
        tower(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="`pool` must be 'end' or 'last', got 'mean'"):
        TextTransformer(30, pool="mean")
