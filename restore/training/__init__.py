"""The trainer: recipe in, weights that `restore image` loads out.

    recipe.yaml -> TrainConfig -> Recipe (networks, losses, batches) --+
                                                                       v
                 folder of the run <- Run (log, saves, validates) <- Trainer (steps)

A new kind of training is a new class: a module with a dataclass that extends `TrainConfig` and a
class that has what `recipe.Recipe` lists, one line in `registry.RECIPES`, and a YAML file that
names it. The loop, the log, resuming and validation are there already.
"""
