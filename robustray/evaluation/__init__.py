"""Evaluations: networks judged by suites of attacks, in units that are computed once.

A unit is a range of images under one attack. It is named by the hash of all that its verdicts
depend on, computed by a pool of Ray actors, and committed to the store. Whatever is killed, the
same command computes only what is not there.

Import from the modules: workers import some of them only, without Ray Tune, MLflow and matplotlib.

==============  ===================================================================
evaluation      `run_evaluation`, `plan_evaluation`: one network
study           `evaluate_study`: every selected checkpoint of a sweep
corruptions/    networks on corrupted images, by corruption and severity: a kind of its own
audit/          the checks of a model, as functions and as units
task            what is computed, and its key
units/          how it is computed, its place in the store, and what runs the attacks: our
                own engine or the reference implementation
record          from units to a table, and to the forms that others read
==============  ===================================================================
"""
