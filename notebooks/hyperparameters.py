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
# # Threshold, calibration, pruning, break-even
#
# What Tabi's hyper-parameters do, read from the profiles and plans that a results folder holds: no model runs.
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
# ## Threshold tau
#
# A query goes on to the large model when the small one's confidence lies below tau. From top to bottom: score,
# predicted mean latency and the share re-routed, as tau grows; dotted lines are the values that the plan chose for
# its two folds, and the target and INFaaS lie across. Look for where the score has levelled off while the latency
# still climbs: tau beyond that point buys nothing. Drawn for tasks where Tabi chose two levels in both folds.

# %%
report.show("threshold")

# %% [markdown]
# ## Calibration
#
# Share of right answers against the small model's confidence, before and after temperature scaling; a perfect model
# lies on the diagonal, points below it are too sure of themselves. The temperature is fitted on the other fold. With
# two labels it cannot change which queries are least sure, only what a value of tau means; with more labels it can.

# %%
report.show("calibration")

# %% [markdown]
# ## Deferral
#
# Accuracy as more queries are handed to the large model, the least sure first, beside random order and the oracle's.
# The nearer the blue curve keeps to the oracle's, the better the confidence; on the dotted random line it would be
# worthless. The oracle falls at its right end, where queries are handed over that only the small model had right.

# %%
report.show("deferral")

# %% [markdown]
# ## Break-even
#
# The least predicted mean latency of one model and of two levels, as the target rises. Two levels pay where the blue
# line lies below the grey one; near the best model's own score they often stop paying, as nearly every query goes on.
# A line that ends early has no point that meets higher targets. In-sample: what there is to be found, not what a plan
# would reach.

# %%
report.show("break_even")

# %% [markdown]
# ## Pruning scale alpha
#
# A word is dropped before the large model when its importance lies below alpha times the mean of its text. Against the
# share of words pruned, from top to bottom: alpha; the score; the large model's time on re-routed queries.
# Importance should keep the score up for longer than dropping as many words at random. Measured by `python run.py
# experiment=pruning`.

# %%
report.show("pruning")
