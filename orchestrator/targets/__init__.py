"""Where a request runs: one package for each target, with the methods of `base.Target`."""
