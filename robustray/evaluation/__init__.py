"""Evaluations: networks judged by suites of attacks, in units that are computed once.

A unit is a range of images under one attack. It is named by the hash of all that its verdicts
depend on, computed by a pool of Ray actors, and committed to the store. Whatever is killed, the
same command computes only what is not there.

Import from the modules: workers import some of them only, without Ray Tune, MLflow and matplotlib.

==============  ===================================================================
evaluation      `run_evaluation`, `plan_evaluation`: one network
study           `evaluate_study`: every selected checkpoint of a sweep
auditing        `run_audit`; ``audit`` has the checks, as a function of a model
task, units     what is computed, its key, and its place in the store
merge, record   from units to a table, and to the forms that others read
engines         what runs attacks: our own, or the reference implementation
==============  ===================================================================
"""
