"""The training loop and what it needs: run, plan, state, validation, records, recovery, profiler."""
