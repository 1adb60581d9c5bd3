"""`make bench`: everything that compares speeds."""

from benchmarks import startup, submit, training_loop

startup.main()
submit.main()
training_loop.main()
