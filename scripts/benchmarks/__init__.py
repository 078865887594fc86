"""The works that `bench.py` times, on each side, and the figures from them.

`works` says what is done, `lines` who does it against whom and what is aimed at. `ours`, `plain` and
`with_…` do a work; `worker` is the process that they run in; `driver` starts such processes in turns,
`commands` whole programs; `figures` and `table` tell.
"""
