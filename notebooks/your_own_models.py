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
# # Your own data and models
#
# A whole session on files: two csv files and two model folders go in, records come out. For want of yours the files
# are written here from a generated task, and two shipped models stand in for your own; nothing is fetched, a CPU will
# do. `docs/YOUR_OWN.md` tells every option. Files and records go to `WORK`, relative to the root of the checkout.

# %% tags=["parameters"]
import os

WORK = os.environ.get("WORK", "outputs/your_own")
MODELS = ["tabi_bench/zoo/shipped/sst2/1x64", "tabi_bench/zoo/shipped/sst2/10x48"]

# %%
import subprocess
import sys
import warnings
from pathlib import Path

if os.path.isfile("../run.py"):  # a kernel starts beside its notebook
    os.chdir("..")

warnings.filterwarnings("ignore", "IProgress not found")  # progress bars do without widgets

from tabi_bench.config import read_file
from tabi_bench.report.browse import Report
from tabi_bench.tasks import load_task

# %% [markdown]
# ## The files
#
# `train` tells which output of a model is which label, `validation` is what gets served. A column of text and a
# column of label names are all that is needed; a few hundred rows of validation are the least that says anything.

# %%
Path(WORK).mkdir(parents=True, exist_ok=True)
source = read_file("source", "generated", train_rows=300, validation_rows=300)
task = load_task(read_file("task", "sst2"), source, seed=0)
for split in ("train", "validation"):
    frame = getattr(task, split).to_pandas()[["sentence", "label"]]
    frame["label"] = frame["label"].map(dict(enumerate(task.config.labels)))
    frame.to_csv(f"{WORK}/{split}.csv", index=False)
frame.head()

# %% [markdown]
# ## The run
#
# The same as typing `python run.py` and these options. The two numbers of 300 keep it short: leave them out with data
# of your own. The same call again finds the finished run.

# %%
options = [
    "task=custom",
    "task.name=tickets",
    "source=local",
    f"task.files.train={WORK}/train.csv",
    f"task.files.validation={WORK}/validation.csv",
    "task.texts=[sentence]",
    "source.validation_rows=300",
    "scenario.min_queries=300",
    "scenario.profile_rounds=1",  # to try things out
    "zoo=custom",
    f"zoo.paths=[{','.join(MODELS)}]",
    f"results_dir={WORK}/results",
]
plain = {**os.environ, "FORCE_COLOR": "", "COLUMNS": "120"}  # no colours: the output is shown as it is
done = subprocess.run([sys.executable, "run.py", *options], capture_output=True, text=True, env=plain)
print(done.stdout if done.returncode == 0 else done.stderr)
done.check_returncode()

# %% [markdown]
# ## What it says
#
# Read the table from the left: did both systems meet the target, how many queries returned early, what did that do to
# the mean latency. With so few rows the intervals are wide.

# %%
report = Report(f"{WORK}/results")
report.show("main")

# %% [markdown]
# Where the cascade would pay on these models and data, over targets and thresholds. If the small model's confidence
# says little (deferral close to random), no threshold helps: train a better small model first.

# %%
report.show("threshold", "deferral", "break_even")

# %% [markdown]
# ## The records themselves
#
# One folder per system: `record.json` holds every number with its provenance, `trace.parquet` a row per served query,
# `plan.json` what was decided offline. Here Tabi's: its operating point for each fold, and its first queries.

# %%
tabi = next(run for run in report.results.runs if run.record.method == "tabi")
[fold.point for fold in tabi.plan.folds]

# %%
tabi.trace.head()
