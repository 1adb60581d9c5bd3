"""Measure start-up, submit and the training loop (`make bench`), and rewrite their tables in docs/benchmarks.md."""

from benchmarks import startup, submit, training_loop

startup.main()
submit.main()
training_loop.main()
