"""The loop, and what it needs: run, plan, state, validation, bookkeeping, recovery, profiler."""
