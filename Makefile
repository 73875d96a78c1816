PYTHON ?= python3
VENV := .venv
, := ,
BIN := $(VENV)/bin

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . \
	  --config-settings editable_mode=compat
	touch $@

demo: $(VENV)/.installed  ## install, then one run: Tabi against INFaaS on the embedded MNLI stand-in
	$(BIN)/python run.py task=mnli method=tabi
	@echo
	@echo "Next: $(BIN)/tabi-bench task=sst2 method=tabi3               another task, another method"
	@echo "      $(BIN)/python -m tabi_bench.export outputs/adhoc/mnli-tabi-* my_plan"
	@echo "                                                            the plan for a program of your own"
	@echo "      make report                                           tables, figures and a page of what was measured"

test: $(VENV)/.installed  ## install, then the tests, two at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed  ## ruff: rules and formatting; mypy: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bundle: $(VENV)/.installed  ## pack for a machine without a network: make bundle ARGS="DIR --tasks rte zoo=minilm ..."
	$(BIN)/python -m tabi_bench.bundle $(ARGS)

RESULTS ?= outputs
MEASURED := models main_table all_systems three_level deebert pruning ablation

report: $(VENV)/.installed  ## tables, figures and a web page of records: make report RESULTS=outputs
	$(BIN)/python -m tabi_bench.report $(RESULTS)

reproduce: $(VENV)/.installed  ## all measured presets, then the report: make reproduce TASKS="sst2 mnli"
	for preset in $(MEASURED); do \
	  $(BIN)/python run.py experiment=$$preset results_dir=$(RESULTS) $(if $(TASKS),task=$(subst $() ,$(,),$(strip $(TASKS)))) || exit 1; \
	done
	$(MAKE) report

notebooks: $(VENV)/.installed  ## notebooks/*.ipynb anew from their .py, without outputs
	$(BIN)/jupytext --quiet --to ipynb notebooks/*.py

docs: $(VENV)/.installed  ## a web site of docs/, in outputs/site
	$(BIN)/python -m pip install -q --disable-pip-version-check "mkdocs-material>=9.6,<10"
	$(BIN)/mkdocs build -q

clean:  ## remove the environment and outputs
	rm -rf $(VENV) outputs

.PHONY: help demo test lint format bundle report reproduce notebooks docs clean
