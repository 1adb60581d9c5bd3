"""Choose a recipe's defaults on the built-in model: train a grid of settings, measure, write docs/defaults.md."""
