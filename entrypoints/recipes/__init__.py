"""One implementation a recipe: `train(recipe, run)` in the module of the recipe's name."""
