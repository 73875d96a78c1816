"""Tokenizers made of raw vocabulary files are those of the models' own libraries."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tabi_bench.zoo.custom import compare_tokens, write_tokenizer
from tabi_bench.zoo.families import family
from tabi_bench.zoo.families.sentencepieces import first_difference, raw_model
from tabi_bench.zoo.loading import ModelError
from tests.engines.micro_models import write_model
from tests.zoo.toys import toy_task

LINES = [
    "Judie, chief executive (of ProMedica), helps the 2-year-old institute in the U.S. to go on.",
    "On August 21 the weekly Przekrój published 3½ pages ; a \"quoted\" e-mail , ``quoted'' again .",
    " About 2,200  people\tdied\n before ﬁve ｏ’clock … ",
] * 40
SENTENCEPIECE = {
    "deberta-v2": ("spm.model", {"control_symbols": ["[PAD]", "[CLS]", "[SEP]"], "pad_id": -1, "unk_piece": "[UNK]"}),
    "albert": (
        "spiece.model",
        {
            "control_symbols": ["[CLS]", "[SEP]"],
            "user_defined_symbols": ["[MASK]", "(", ")", '"', "-", ".", "–"],
            "pad_id": 0, "unk_id": 1, "pad_piece": "<pad>", "normalization_rule_name": "nmt_nfkc_cf",
        },
    ),
}  # fmt: skip


@pytest.fixture(params=SENTENCEPIECE)
def raw(request, tmp_path):
    """A folder with a raw sentencepiece model, as these families' older checkpoints have it, and its family."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    name, options = SENTENCEPIECE[request.param]
    lines = [" ".join(line.split()) for line in LINES]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "m"), vocab_size=140, model_type="unigram",
        bos_id=-1, eos_id=-1, hard_vocab_limit=False, minloglevel=2, **options,
    )  # fmt: skip
    (tmp_path / "m.model").rename(tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": request.param, "vocab_size": 200}))
    return tmp_path, family(request.param)


def test_a_sentencepiece_models_tokens_are_its_own(raw, tmp_path):
    folder, adapter = raw
    write_tokenizer(folder, tmp_path / "made.json")
    made = Tokenizer.from_file(str(tmp_path / "made.json"))
    assert first_difference(made, raw_model(folder), LINES, [adapter.plain_text(line) for line in LINES]) is None
    tokens = made.encode("a (b)", "c").tokens
    assert tokens[0] == "[CLS]" and tokens.count("[SEP]") == 2 and tokens[-1] == "[SEP]"


def test_a_tokenizer_that_differs_is_refused_with_the_text(raw, tmp_path):
    folder, adapter = raw
    (tmp_path / "made").mkdir()
    spec = write_model(tmp_path / "made", "albert" if adapter is family("albert") else "deberta-v2")
    with pytest.raises(ModelError, match=r"splits '.* film.*' of train otherwise than sentencepiece does"):
        compare_tokens(folder, spec, toy_task(20))


def test_a_pair_of_debertas_first_version_has_one_separator_between_its_texts(tmp_path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer.model.save(str(tmp_path))  # vocab.json, merges.txt
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deberta", "vocab_size": 400}))
    write_tokenizer(tmp_path, tmp_path / "made.json")
    made = Tokenizer.from_file(str(tmp_path / "made.json"))
    pair, first, second = made.encode("the U.S.", "a page"), made.encode("the U.S."), made.encode("a page")
    assert pair.ids == [*first.ids, *second.ids[1:]]
    assert first.tokens[0] == "[CLS]" and first.tokens[-1] == "[SEP]" and pair.tokens.count("[SEP]") == 2
