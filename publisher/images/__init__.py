"""From a recipe to a built image: inputs digest, cache, Apptainer, inventory."""
