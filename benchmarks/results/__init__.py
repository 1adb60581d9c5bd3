"""Train each recipe on the built-in model by the command line, evaluate what comes out, and write docs/results.md."""
