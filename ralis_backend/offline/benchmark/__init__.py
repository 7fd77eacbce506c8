"""Strategies x seeds on a labelled dataset -> learning curves with intervals, paired by seed.

Every strategy of a seed begins with the same labelled regions, is offered pools drawn in the same
order, and trains with the same random numbers. `run` plays and writes, `arenas` says on what,
`statistics` and `summary` what comes out, `plot` and `report` show it.
"""
