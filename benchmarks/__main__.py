"""`make bench`: everything that compares speeds."""

from benchmarks import startup, training_loop

startup.main()
training_loop.main()
