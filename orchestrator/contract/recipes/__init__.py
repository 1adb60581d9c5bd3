"""One declaration a recipe; the module's name is the recipe's."""
