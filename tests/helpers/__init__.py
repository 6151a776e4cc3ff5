"""Code that several test files share. Test files are in the folders beside this one.

Workers import `worker_networks`, `evaluation_tasks` and `counting_job` by name, so these load
nothing that takes seconds. Fixtures (`server_fixtures`, `study_fixtures`) are registered in
``tests/conftest.py``.
"""
