"""tabi-bench: multi-level (cascade) inference for BERT-like classifiers, measured."""

__version__ = "0.1.0"
