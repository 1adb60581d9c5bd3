"""Several jobs that differ in a few settings, side by side: planned, paid for, run and shown as one.

`grid` makes the jobs, `budget` divides the money, `running` runs them, `samples` reads the images of their adapters,
`contact_sheet` lays those out side by side, `results` keeps what came of the sweep.
"""
