"""Fine-tuning: the agent learns from its owner's past studies.

Past studies become examples (`dataset`: prompts as inference renders them, answers that hindsight
calls good). A model is trained on them (`train`), and the result is used only if it beats its base
on tasks that it never saw (`gate`). `rounds` does all of it; the trained model lies on the shelf
of models with a card that says what it was made of (`shelving`).
"""
