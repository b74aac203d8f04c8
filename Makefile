# Everything a developer needs; each target sets up .venv by itself, from the locked versions in requirements/.
#
#   make demo [ARGS=--once]   see what early pipelining saves, against an embedded mail server
#   make test [ARGS=...]      the tests, JOBS=4 files at a time; ARGS go to pytest
#   make lint                 ruff and mypy
#   make bench [ARGS=...]     CPU and memory per session, against other proxies
#   make bench-wan [ARGS=...] round trips of a delivery over a long line, beside Postfix and Exim (root)
#   make bench-relay [ARGS=...]  CPU per delivered message, beside Postfix and Exim as relays (root)
#   make lock                 write requirements/ anew from pyproject.toml (needs uv)
#   make clean                remove everything that make has made
#
# SMTPPROXY_INTEROP=skip|require with `make test`: leave the real mail servers out, or fail without them.
# Unset, they are installed where that is possible (root, apt-get), and tests that miss one are skipped.

SHELL := /bin/sh
VENV := .venv
JOBS := 4
INSTALL := requirements/install.sh
LOCK := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock"

.PHONY: demo test interop lint bench bench-wan bench-relay lock clean

demo: $(VENV)/run.stamp
	$(VENV)/bin/smtpproxy demo $(ARGS)

test: $(VENV)/dev.stamp interop
	$(VENV)/bin/pytest -n $(JOBS) --dist loadfile $(if $(filter skip,$(SMTPPROXY_INTEROP)),-m "not interop") $(ARGS)

interop:
	@if [ "$$SMTPPROXY_INTEROP" = skip ]; then \
		echo "without the tests that need real mail servers"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		tests/interop/install.sh || [ "$$SMTPPROXY_INTEROP" != require ]; \
	elif [ "$$SMTPPROXY_INTEROP" = require ]; then \
		echo "SMTPPROXY_INTEROP=require needs root and apt-get" >&2; exit 1; \
	fi

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict smtpproxy

bench: $(VENV)/run.stamp
	$(VENV)/bin/python bench/run.py $(ARGS)

# The mail servers beside us are those that the tests install; without root both say why they do nothing.
bench-wan bench-relay: bench-%: $(VENV)/run.stamp interop
	PYTHONPATH=bench $(VENV)/bin/python -m $* $(ARGS)

lock:
	$(LOCK) --group build --output-file requirements/run.txt
	$(LOCK) --group dev --output-file requirements/dev.txt

$(VENV)/%.stamp: requirements/%.txt $(INSTALL) pyproject.toml setup.py
	$(INSTALL) $(VENV) $<
	@touch $@

clean:
	rm -rf $(VENV) build dist smtpproxy.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find smtpproxy tests bench twisted -name __pycache__ -prune -exec rm -rf {} +
