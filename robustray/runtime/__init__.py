"""What all long work needs: leases, attempts, failures, queues, pools, sessions, signals.

Nothing in here knows what is computed: sweeps, evaluations and jobs of other kinds are built on it.
"""
