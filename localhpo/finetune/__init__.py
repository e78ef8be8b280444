"""Fine-tuning of a model on the user's past studies.

Past studies become training examples (`dataset`): prompts as inference renders them, and answers
that are relabeled with the best configurations known by now (`relabeling`). A model is trained on
them (`train`) and used only if it beats its base on tasks that were kept aside (`evaluation`).
`pipeline` runs all of this; the trained model goes to the model registry (`registration`).
"""
