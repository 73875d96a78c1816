"""Inputs of the kinds that people's own files hold: each is read as it was written, or refused in one sentence."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabi_bench.config import FilesConfig, read_file
from tabi_bench.tasks import load_task
from tabi_bench.tasks.checks import DataError
from tests.settings import toy_task

ROWS = [(f"film number {k}", ("neg", "pos")[k % 2]) for k in range(40)]


def csv_of(rows, header="text,label", end="\n", mark=""):
    return (mark + end.join([header, *(",".join(map(str, row)) for row in rows)]) + end).encode()


def jsonl_of(rows):
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()


@pytest.fixture
def task_of(tmp_path):
    """Loads a custom task from the bytes of its validation (and train) file."""

    def load(validation: bytes, train: bytes | None = None, suffix: str = "csv", **changes):
        paths = {"train": tmp_path / f"train.{suffix}", "validation": tmp_path / f"validation.{suffix}"}
        paths["train"].write_bytes(validation if train is None else train)
        paths["validation"].write_bytes(validation)
        files = FilesConfig(**{split: str(path) for split, path in paths.items()})
        task = replace(toy_task("custom", "custom"), files=files, **changes)
        return load_task(task, read_file("source", "local"), 0)

    return load


def refused(task_of, match, *arguments, **options):
    with pytest.raises(DataError, match=match) as error:
        task_of(*arguments, **options)
    assert "\n" not in str(error.value)


# --- the file against the rows ----------------------------------------------------------------------------------------


def test_two_stray_quotation_marks_are_refused_by_the_line(task_of):
    rows = [(('"' if k in (10, 30) else "") + text, label) for k, (text, label) in enumerate(ROWS)]
    refused(task_of, r"validation.csv: line 12: quotation marks that do not pair up", csv_of(rows), csv_of(ROWS))
    rows[30] = ('it is 5"', "neg")  # now they do pair up: 20 rows become one
    refused(
        task_of, r"line 12: a quotation mark opens here, closes in line 32, and every line", csv_of(rows), csv_of(ROWS)
    )


def test_quoted_line_breaks_commas_and_marks_are_read_as_written(task_of):
    texts = ['two\nlines, "so"', "three\r\nlines\nhere", 'a "bare" mark', ",", "  spaces  ", "naïve\u2028end"]
    frame = pd.DataFrame({"text": texts * 2, "label": ["neg", "pos"] * 6})
    assert [text for (text,) in task_of(frame.to_csv(index=False).encode()).texts("validation")] == texts * 2
    single = "text,label\n" + "".join(f'say "{word}" now,{label}\n' for word, label in ROWS)
    assert task_of(single.encode()).texts("train")[3] == ('say "film number 3" now',)


@pytest.mark.parametrize("row, fields", [("one, two,neg", 3), ("neg", 1), ("a,b,neg,", 4), (" ", 1)])
def test_fields_are_counted(row, fields, task_of):
    content = csv_of(ROWS[:7]) + f"{row}\n".encode() + csv_of(ROWS)[11:]
    refused(task_of, rf"validation.csv: line 9: {fields} fields, but the header has 2; a comma", content, csv_of(ROWS))
    tabs = content.replace(b",", b"\t")
    refused(task_of, rf"line 9: {fields} fields, but the header has 2; cells of a tsv", tabs, suffix="tsv")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix, comma", [("csv", ","), ("tsv", "\t")])
def test_marks_and_ends_of_lines_are_read(mark, end, suffix, comma, task_of):
    content = csv_of(ROWS, end=end, mark=mark).replace(b",", comma.encode())
    task = task_of(content, suffix=suffix)
    assert task.texts("validation") == [(text,) for text, _ in ROWS] and task.config.labels == ["neg", "pos"]


ENCODINGS = {
    "cp1252": r"line 3: byte 0xe9 is no UTF-8, 'é' in Windows-1252 \(cp1252\); save the file as UTF-8",
    "utf-16": r"it is UTF-16, but UTF-8 text is expected",
    "utf-16-le": r"line 1: a NUL byte; UTF-16 without a mark",
    "utf-32": r"it is UTF-32, but UTF-8 text is expected",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_encodings_are_named(encoding, task_of):
    content = csv_of([("plain", "neg"), ("un café", "pos"), *ROWS]).decode().encode(encoding)
    refused(task_of, r"train.csv: " + ENCODINGS[encoding], content)


def test_files_that_are_something_else_are_named(task_of):
    refused(task_of, "it is a zip archive or a workbook, but UTF-8 text", b"PK\x03\x04 and so on")
    refused(
        task_of, "it is a git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid ...", suffix="parquet"
    )
    refused(task_of, "it is parquet, but UTF-8 text", b"PAR1...PAR1", suffix="jsonl")
    refused(task_of, "train.jsonl: the file is empty; one object per line", b" \n\n", suffix="jsonl")
    for mark in ";|\t":
        refused(task_of, "it has .*Are its cells parted by", csv_of(ROWS).replace(b",", mark.encode()))
    refused(
        task_of, r"label than train has: 'a\\nb\\x1b\[1m' \(1 rows\)", csv_of(ROWS) + b'x,"a\nb\x1b[1m"\n', csv_of(ROWS)
    )
    refused(task_of, "train.csv: the file is empty; its first line names the columns", b"")
    refused(task_of, "'text' stands there twice; rename one", csv_of([(1, 2, 3)], "text,text,label"))


def test_jsonl_is_split_at_line_ends_alone(task_of):
    rows = [("a\u2028b\u0085c\x0bd", "neg"), ("plain", "pos")] * 4
    raw = "".join(json.dumps({"text": t, "label": label}, ensure_ascii=False) + "\r\n" for t, label in rows)
    assert task_of(raw.encode(), suffix="jsonl").texts("train") == [(text,) for text, _ in rows]


@pytest.mark.parametrize(
    "line, reason",
    [
        ('[{"text": "a", "label": "neg"}]', "a list, not an object; one object per line"),
        ("17", "a number, not an object"),
        ('"text"', "a text, not an object"),
        ("null", "null, not an object"),
        ('{"text": "a", "label"', "not a JSON object"),
        ('{"text": "a", "text": "b", "label": "neg"}', "'text' stands there twice"),
        ('{"text": "a\x01", "label": "neg"}', "not a JSON object .Invalid control character"),
        ("[" * 100_000, "not a JSON object .RecursionError"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "not a JSON object .ValueError"),
    ],
)
def test_a_line_of_jsonl_is_one_object(line, reason, task_of):
    content = jsonl_of(ROWS[:2]) + b"\n" + line.encode() + b"\n"
    refused(task_of, f"train.jsonl: line 4: {reason}", content, suffix="jsonl")


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [["pos", "neg"], {"a": 1}, [[1]]])
@pytest.mark.parametrize("column", ["text", "label"])
def test_lists_and_objects_are_no_cells(column, bad, task_of):
    rows = [{"text": text, "label": label} for text, label in ROWS]
    rows[4][column] = bad
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    refused(task_of, rf"train.jsonl: line 5: column '{column}' holds an? (list|object) \(", content, suffix="jsonl")


def test_lists_of_labels_written_as_text_and_halves_of_characters_are_refused(task_of):
    content = csv_of([("a", "pos"), *ROWS]) + b"b,\"['pos', 'neg']\"\n"
    refused(task_of, r"1 of 42 rows have a list of labels in column 'label', the first at line 43; one label", content)
    half = jsonl_of(ROWS) + b'{"text": "\\ud800", "label": "neg"}\n'
    refused(task_of, r"line 41: column 'text' holds half of a character \(a lone surrogate\)", half, suffix="jsonl")


def test_nulls_are_refused_by_line_and_numbers_and_booleans_are_cells(task_of):
    rows = [(3, True), (2.5, False)] * 3
    task = task_of(jsonl_of(rows), suffix="jsonl")
    assert task.texts("train")[:2] == [("3",), ("2.5",)] and task.config.labels == ["False", "True"]
    for bad in ((None, "neg"), (float("nan"), "neg")):
        refused(task_of, "1 of 41 rows have no text in column 'text', the first at line 41", jsonl_of([*ROWS, bad]),
                suffix="jsonl")  # fmt: skip
    missing = jsonl_of(ROWS) + b'{"text": "a"}\n'
    refused(task_of, "1 of 41 rows have no label in column 'label', the first at line 41", missing, suffix="jsonl")
    refused(task_of, "1 of 41 rows have no label .*the first at line 42", csv_of([*ROWS, ("a", " ")]))


def parquet_of(tmp_path, **columns) -> bytes:
    pq.write_table(pa.table(columns), tmp_path / "made.parquet")
    return (tmp_path / "made.parquet").read_bytes()


def test_whatever_parquet_holds_is_decoded_or_refused_by_row(task_of, tmp_path):
    texts = [text for text, _ in ROWS[:6]]
    labels = {
        "bytes": pa.array([b"no", b"yes"] * 3),
        "categories": pa.array(["no", "yes"] * 3).dictionary_encode(),
        "large": pa.array(["no", "yes"] * 3, pa.large_string()),
        "decimals": pa.array([Decimal("1.00"), Decimal("2.00")] * 3),
        "halves": pa.array([1.0, 2.0] * 3, pa.float16()),
        "small": pa.array([1, 2] * 3, pa.uint8()),
    }
    for kind, label in labels.items():
        content = parquet_of(tmp_path, text=texts, label=label, other=[[1]] * 6)
        task = task_of(content, suffix="parquet")
        assert task.config.labels == (["no", "yes"] if kind in ("bytes", "categories", "large") else ["1", "2"]), kind
        assert task.labels("train").tolist() == [0, 1] * 3
    for bad, match in [
        (pa.array([b"\xff", b"yes"] * 3), "row 1: column 'label' holds bytes that are no UTF-8 text"),
        (pa.array([pd.Timestamp("2024-01-01")] * 6), r"row 1: column 'label' holds (Timestamp|datetime) \(2024"),
        (pa.array([["a"], ["b"]] * 3), r"row 1: column 'label' holds a list \(\['a'\]\), not text or a number; one"),
    ]:
        refused(task_of, match, parquet_of(tmp_path, text=texts, label=bad), suffix="parquet")


def test_narrow_floats_are_the_numbers_that_were_written(task_of, tmp_path):
    scores = [3.8, 0.1, 4.668, 2.0, 5.0, 1.25]
    for column in (pa.array(scores, pa.float32()), pa.array(scores, pa.float32()).dictionary_encode(),
                   pa.array(scores, pa.float16())):  # fmt: skip
        content = parquet_of(tmp_path, text=[text for text, _ in ROWS[:6]], score=column)
        task = task_of(content, suffix="parquet", label="score", metric="pearson")
        assert task.labels("train").tolist() == scores, column.type


@pytest.mark.parametrize("names", ["5", "[1, 2]", '{"a": 1}', "[]", "null"])
def test_names_of_classes_that_are_none_are_not_believed(names, task_of):
    written = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ' + names + "}}}}"
    table = pa.table({"text": [text for text, _ in ROWS[:6]], "label": [0, 1] * 3})
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"huggingface": written.encode()}), stream)
    assert task_of(stream.getvalue(), suffix="parquet").config.labels == ["0", "1"]


# --- labels -----------------------------------------------------------------------------------------------------------


def numbered(*numbers):
    return csv_of([(f"text {k}", number) for k, number in enumerate(numbers * 10)])


def test_classes_that_train_lacks_are_refused_with_their_count_and_what_train_has(task_of):
    match = r"validation.csv: 10 of 30 rows have another label than train has: '0' \(10 rows\), the first at line 2; "
    match += "there are 1, 2, 3. Drop these rows, or name every label in task.labels"
    refused(task_of, match, numbered(0, 1, 2), numbered(1, 2, 3))


def test_numbers_are_positions_in_both_splits_or_in_none(task_of):
    names = csv_of([(f"text {k}", ("bad", "good")[k % 2]) for k in range(20)])
    both = task_of(numbered(0, 1), numbered(1, 0), labels=["good", "bad"])
    assert both.labels("validation")[:2].tolist() == [0, 1]
    for given in ([], ["bad", "good"]):
        match = r"20 of 20 rows have another label .*: '0' \(10 rows\), '1' .*numbers are not read as positions here"
        refused(task_of, match.replace("numbers", "(so )?numbers"), numbered(0, 1), names, labels=given)
    refused(task_of, r"'2' \(10 rows\).*there are good, bad, as positions 0 to 1", numbered(0, 2), numbered(0, 1),
            labels=["good", "bad"])  # fmt: skip
    refused(task_of, r"'0' \(10 rows\), the first at line 2; there are 1, 2. Mend", numbered(0, 1), labels=["1", "2"])


@pytest.mark.parametrize(
    "train, held", [("1.0", 1), ("01", 1), ("+1", 1), ("True", "true"), ("pos", "POS"), ("pos\u200b", "pos")]
)
def test_other_spellings_of_a_label_in_the_other_file_are_named_as_such(train, held, task_of):
    refused(task_of, "have another label .* look like other spellings of these labels: write them alike in both files",
            numbered(0, held), numbered(0, train))  # fmt: skip
    assert any("look like spellings of one label" in line for line in task_of(numbered(0, train, held)).warnings)


def test_which_label_f1_is_about_is_named_and_can_be_set(task_of):
    three = csv_of([(f"text {k}", ("neg", "neutral", "pos")[k % 3]) for k in range(30)])
    assert task_of(csv_of(ROWS), metric="f1").notes["metric"] == "f1 of 'pos'"
    task = task_of(three, metric="f1@neg", also=["f1@pos"])
    assert (task.config.metric, task.config.also, task.notes["metric"]) == ("f1@0", ["f1@2"], "f1 of 'neg'")
    for metric in ("f1", "f1@1", "f1@bad"):
        refused(task_of, f"task.metric={metric}: F1 is about one label; write f1@LABEL with one of neg, neutral, pos",
                three, metric=metric)  # fmt: skip
    refused(task_of, "task custom has classes, of which there is no pearson", three, also=["pearson"])


def test_names_of_labels_are_part_of_what_a_task_is(task_of):
    one = task_of(csv_of(ROWS))
    other = task_of(csv_of([(text, label.upper()) for text, label in ROWS]))
    assert one.labels("train").tolist() == other.labels("train").tolist() and one.content_hash != other.content_hash


@pytest.mark.parametrize(
    "labels, warning",
    [
        (("nan", "pos", "neg"), "'nan' stands 40 times among the labels; drop these rows if they have none"),
        (("N/A", "pos", "neg"), "'N/A' stands 40 times"),
        (("Positive", "positive", "neg"), "'Positive' and 'positive' look like spellings of one label"),
        (("not spam", "not_spam", "spam"), "'not spam' and 'not_spam' look like spellings"),
        (("joy", "anger", "joy|anger"), "labels like 'joy|anger' look like several labels in one"),
        (("1.5", "2", "3.5"), "its 3 labels are numbers, nearly one class a value; scores? task.metric=pearson"),
        (tuple(range(12)), "its 12 labels are numbers, nearly one class a value"),
        (tuple(f"id-{k:04}" for k in range(20)), "20 labels in 20 rows of train, nearly one class a row"),
    ],
)
def test_labels_that_hardly_are_labels_are_warned_about(labels, warning, task_of):
    rows = [(f"text {k}", label) for k, label in enumerate(labels * (1 if len(labels) == 20 else 20))]
    assert any(line.startswith(warning) for line in task_of(csv_of(rows)).warnings)


def test_plain_labels_are_not_warned_about(task_of):
    other = csv_of([(f"another {text}", label) for text, label in ROWS])
    assert task_of(csv_of(ROWS), other).warnings == []
    for labels in ((1, 2, 3, 4, 5), ("no", "yes", "maybe"), ("-1", "0", "1"), ("entailment", "not_entailment")):
        train, held = ([(f"{word} {k}", label) for k, label in enumerate(labels * 9)] for word in ("a", "b"))
        assert task_of(csv_of(held), csv_of(train)).warnings == []


# --- plausibility -----------------------------------------------------------------------------------------------------


def test_a_class_that_validation_lacks_is_warned_about_and_undefined_metrics_are_refused(task_of):
    alone = csv_of([(f"held {k}", "pos") for k in range(20)])
    assert task_of(alone, csv_of(ROWS)).warnings == [
        "all rows of validation have the same label; a model that never looks at the text is right there"
    ]
    three = csv_of([*ROWS, ("a third", "mixed"), ("more", "mixed")])
    assert "validation has no row of 1 of 3 labels: mixed" in task_of(csv_of(ROWS), three).warnings
    for metric in ("matthews", "f1"):
        refused(task_of, rf"20 of 20 rows of validation have the same label, 'pos'; {metric} is undefined there",
                alone, csv_of(ROWS), metric=metric)  # fmt: skip
        refused(task_of, f"20 of 21 rows.*{metric} is undefined", alone + b"one,neg\n", csv_of(ROWS), metric=metric)
    for metric in ("pearson", "spearman"):
        constant, train = numbered(3.0), numbered(1.5, 2.5, 4.0)
        refused(
            task_of, rf"10 of 10 rows of validation have the same label, 3; {metric} is", constant, train, metric=metric
        )
        refused(task_of, f"train have the same label, 3; {metric} is undefined", train, constant, metric=metric)
    comma = csv_of([("a", 2), ("b", '"1,5"')])
    refused(task_of, "no finite number in column 'label', the first at line 3: '1,5'", comma, metric="pearson")


def test_two_scores_alone_and_empty_texts_are_warned_about(task_of):
    assert any(
        "two classes? task.metric=accuracy" in line for line in task_of(numbered(0, 1), metric="pearson").warnings
    )
    blank = csv_of([("", "neg"), ("a", "pos")] * 10)
    assert "10 of 20 validation rows have an empty text (task.texts: the columns)" in task_of(blank).warnings


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"texts": []}, r"task.texts=\[\]: name one column, or two"),
        ({"texts": ["a", "b", "c"]}, r"task.texts=\['a', 'b', 'c'\]: name one column, or two"),
        ({"texts": ["text", "text"]}, "or two different ones"),
        ({"texts": ["label"]}, r"task.texts=\['label'\] names the column of the labels too"),
        ({"labels": ["pos", "neg", "pos"]}, "task.labels names 'pos' more than once"),
        *(({"name": name}, r"task.name=.*: a name for folders in results_dir")
          for name in ("", "../../evil", "my/tickets", "a\\b", "..", ".hidden", "a\nb", "x" * 300)),
    ],
)  # fmt: skip
def test_names_and_columns_that_cannot_be_used_are_refused_before_files_are_read(changes, match):
    with pytest.raises(DataError, match=match):
        load_task(replace(toy_task("custom", "custom"), **changes), read_file("source", "local", dir="none"), 0)


def test_a_quoted_tsv_is_read_as_it_stands_and_warned_about(task_of):
    content = b'text\tlabel\n"say ""yes"""\tpos\n"as it is"\tneg\n'
    task = task_of(content, suffix="tsv")
    assert task.texts("train") == [('"say ""yes"""',), ('"as it is"',)]
    assert any(line.startswith("1 lines of train.tsv look quoted, first line 2") for line in task.warnings)
    every = "text\tlabel\n" + "".join(f'"{text}"\t{label}\n' for text, label in ROWS)
    assert any(line.startswith("40 lines of train.tsv look quoted") for line in
               task_of(every.encode(), suffix="tsv").warnings)  # fmt: skip
