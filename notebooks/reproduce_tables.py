# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tables and figures from records
#
# Everything below is rebuilt from the records of a results folder: no model runs, no GPU is needed. What the folder
# has no records of is reported as not measured. The paper's own numbers stand beside ours wherever it printed them.
#
# `RESULTS` names the folder, relative to the root of the checkout: set the environment variable, or edit the next
# cell.

# %% tags=["parameters"]
import os

RESULTS = os.environ.get("RESULTS", "results/h200-encoders")

# %%
if os.path.isfile("../run.py"):  # a kernel starts beside its notebook
    os.chdir("..")

from tabi_bench.report.browse import Report

report = Report(RESULTS)
report.contents()

# %% [markdown]
# Numbers are comparable within one setting: source, zoo, engine, dtype and device. Every table and figure names its
# own. Latencies are divided only within a session, where the systems served the same queries in interleaved blocks.

# %% [markdown]
# ## Tabi against INFaaS
#
# One row per task. *Less than INFaaS* is the reduction of mean latency against the fastest single model that meets
# the same target, with its 95 % interval. Look at *target* before the reduction: a system that misses it has won
# nothing.

# %%
report.show("headline")

# %% [markdown]
# ## The main table
#
# Left: reduction of mean latency against INFaaS; right of zero is faster, open diamonds are the paper's. Right: score
# minus target. An interval that spans zero on the right says that the report split cannot tell whether the target is
# met.

# %%
report.show("main")

# %% [markdown]
# ## Where the time goes
#
# Mean latency, stacked in the order of the stages. Look at what Tabi pays beside its models (tokenise, decide,
# prune): where the models take little, that is what the cascade has to earn back. *None*: no ensemble meets the
# target.

# %%
report.show("latency")

# %% [markdown]
# ## The tail
#
# Share of queries slower than x, both axes logarithmic. A re-routed query runs both models, so Tabi's curve has a
# step at its re-route share; right of the step it lies beyond INFaaS's. Steps shared by all systems come from the
# machine.

# %%
report.show("tail")

# %% [markdown]
# ## The ladder of models
#
# Score against profiled latency of each model. A cascade needs two models that are far apart in latency and close in
# score; where the ladder is flat, the fastest model serves alone.

# %%
report.show("models")

# %% [markdown]
# ## All systems
#
# The main table with single models, DeeBERT, three levels, random routing and the oracle. Random routing at Tabi's
# re-route share shows what the confidence is worth; the oracle knows the labels and shows what there was to gain. In
# the figure, up and to the left is better; the dotted line is the target.

# %%
report.show("all_systems")

# %% [markdown]
# ## Two and three levels
#
# Which level returned the answer, and the change of mean, median and p99 against two levels of the same session. The
# paper's three levels were slower on the mean and much slower in the tail.

# %%
report.show("three_level")

# %% [markdown]
# ## Early exit inside one model
#
# Tabi against DeeBERT, axes as in the main table's figure. Both skip work on easy queries: DeeBERT inside a model,
# with no second tokenisation, Tabi between models.

# %%
report.show("deebert")

# %% [markdown]
# ## Ablation
#
# Tabi whole, and without calibration, pruning or ensemble, each in a session of its own: compare the reductions. A
# part that matters moves its row to the left when it is missing.

# %%
report.show("ablation")

# %% [markdown]
# ## Engines
#
# The same task under several engines. The faster an engine makes the models, the more the fixed costs of a cascade
# weigh.

# %%
report.show("engines")
