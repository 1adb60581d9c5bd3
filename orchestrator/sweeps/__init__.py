"""Several jobs that differ in a few settings, side by side: planned, paid for, run and shown as one.

`grid` makes the jobs, `budget` divides the money, `running` runs them, `sheets` and `drawing` put their pictures into
one contact sheet, `results` keeps what came of it.
"""
