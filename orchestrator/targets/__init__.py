"""Where a request runs: one module a target, all with the verbs of `base.Target`."""
