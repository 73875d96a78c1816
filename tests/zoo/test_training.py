"""The fine-tuning loop on a micro BERT: it learns, stops early, resumes to the same weights, and distils."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig

from tabi_bench.zoo import training
from tabi_bench.zoo.models import MeanPoolBert
from tabi_bench.zoo.training import Course, Examples, TrainingError, drop_words, loss_of, predict, score_of, train
from tests.settings import fine_tuning

CONFIG = fine_tuning(epochs=6, batch_size=16, learning_rate=5e-3, patience=0, evaluations=4)


def model(seed=0):
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return MeanPoolBert(BertConfig(vocab_size=20, max_position_embeddings=16, num_labels=2, **shape))


def rows(n=160):
    """Token 5 says label 1, token 6 label 0; the rest is filler."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    ids = [rng.permutation([5 if y else 6, *rng.integers(7, 20, rng.integers(3, 9))]).astype(np.int32) for y in labels]
    words = [np.arange(len(row), dtype=np.int32) for row in ids]
    return Examples(ids, [np.zeros_like(row) for row in ids], words, labels)


def test_loss_falls_and_the_cue_is_learnt():
    data, net = rows(), model()
    before = float(loss_of(torch.from_numpy(predict(net.eval(), data, "cpu")), torch.from_numpy(data.labels)))
    result = train(net, data, CONFIG, seed=0)
    logits = predict(net, data, "cpu")
    assert float(loss_of(torch.from_numpy(logits), torch.from_numpy(data.labels))) < before / 2
    assert score_of(logits, data.labels) > 0.95
    assert result.steps == 60 and not net.training


def test_early_stop_keeps_the_best_weights():
    config = fine_tuning(epochs=40, batch_size=16, learning_rate=5e-3, patience=2, evaluations=40)
    data, net = rows(), model()
    data.labels[::4] ^= 1  # noise to overfit, so that the slice's score must stop rising
    result = train(net, data, config, seed=0)
    assert result.steps < 40 * 8
    assert result.score == max(score for _, score, _ in result.history)
    _, held = training.split_slice(data.labels, 0)
    assert score_of(predict(net, data.take(held), "cpu"), data.labels[held]) == result.score


def test_the_moving_average_is_scored_and_kept(monkeypatch):
    seen, update = [], training._Run.update

    def watched(run, loss):
        update(run, loss)
        seen.append(run.model.classifier.weight.detach().clone())

    monkeypatch.setattr(training._Run, "update", watched)
    net = model()
    train(net, rows(), replace(CONFIG, average=0.9), seed=0)
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(net.classifier.weight.detach(), expected)
    assert (net.classifier.weight - seen[-1]).abs().max() > 1e-4

    data, scored = rows(), model()
    result = train(scored, data, replace(CONFIG, average=0.9, patience=3), seed=0)
    _, held = training.split_slice(data.labels, 0)
    assert score_of(predict(scored, data.take(held), "cpu"), data.labels[held]) == result.score


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, monkeypatch, average):
    config = replace(CONFIG, average=average)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole, halted, resumed = model(), model(), model()
    train(whole, rows(), config, seed=0)
    update = training._Run.update

    def interrupted(run, loss):
        if run.step == 40:
            raise KeyboardInterrupt
        update(run, loss)

    monkeypatch.setattr(training._Run, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(halted, rows(), config, seed=0, course=Course(checkpoint=tmp_path / "state.pt"))
    assert (tmp_path / "state.pt").is_file()
    steps = []
    monkeypatch.setattr(training._Run, "update", lambda run, loss: (steps.append(run.step), update(run, loss)))
    train(resumed, rows(), config, seed=0, course=Course(checkpoint=tmp_path / "state.pt"))
    assert steps[0] > 0 and not (tmp_path / "state.pt").exists()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_only_tokens_that_occur_are_trained(monkeypatch):
    data, config = rows(), replace(CONFIG, weight_decay=0.0, word_dropout=0.2)
    data = replace(data, ids=[np.where(row > 14, 14, row).astype(np.int32) for row in data.ids])
    start, cut, whole = model(), model(), model()
    sizes = []
    original = training._loop

    def watched(run, *arguments):
        sizes.append(run.model.get_input_embeddings().weight.shape)
        return original(run, *arguments)

    monkeypatch.setattr(training, "_loop", watched)
    train(cut, data, config, seed=0)
    monkeypatch.setattr(training, "_seen_tokens", lambda model, examples: nullcontext(examples))
    train(whole, data, config, seed=0)
    assert sizes == [(1 + 10, 16), (20, 16)]  # the padding and tokens 5 to 14
    for (name, ours), theirs in zip(cut.state_dict().items(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    before, after = (net.get_input_embeddings().weight for net in (start, cut))
    assert torch.equal(before[15:], after[15:]) and torch.equal(before[1:5], after[1:5])
    assert (before[5:15] - after[5:15]).abs().amax(1).min() > 1e-3


def test_word_dropout_keeps_special_tokens_and_closes_gaps():
    words = torch.tensor([[-1, 0, 0, 1, 2, 3, -1, -1]])
    batch = {"input_ids": torch.arange(8)[None], "token_type_ids": torch.zeros(1, 8, dtype=torch.int64)}
    batch |= {"words": words, "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]])}
    for seed in range(20):
        out = drop_words(batch, 0.5, torch.Generator().manual_seed(seed))
        n = int(out["attention_mask"].sum())
        kept = out["input_ids"][0, :n].tolist()
        assert out["attention_mask"][0].tolist() == [1] * n + [0] * (8 - n)
        assert kept == sorted(kept) and {0, 6} <= set(kept) and 7 not in kept
        assert (1 in kept) == (2 in kept)  # both tokens of one word
    assert drop_words(batch, 0.0, torch.Generator().manual_seed(0))["attention_mask"].sum() == 7


def test_distillation_lowers_the_divergence_from_the_teacher():
    data = rows()
    teacher = np.stack([np.where(data.labels == 0, 0.4, -0.4), np.where(data.labels == 1, 0.4, -0.4)], 1)
    teacher = teacher.astype(np.float32)
    config = replace(CONFIG, distill=0.9)
    plain, student = model(), model()
    train(plain, data, CONFIG, seed=0)
    train(student, replace(data, teacher=teacher), config, seed=0)

    def divergence(net):
        logits = torch.from_numpy(predict(net, data, "cpu"))
        return float(loss_of(logits, torch.from_numpy(data.labels), torch.from_numpy(teacher), 1.0, 1.0))

    assert divergence(student) < divergence(plain) / 2


def test_a_training_that_diverges_or_has_no_rows_is_refused():
    with pytest.raises(TrainingError, match="at least 10 labelled rows, got 3"):
        train(model(), rows().take(np.arange(3)), CONFIG, seed=0)
    net = model()
    with torch.no_grad():
        net.classifier.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        train(net, rows(), CONFIG, seed=0)
