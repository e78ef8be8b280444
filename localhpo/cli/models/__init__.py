"""Commands on language models: `models` and `finetune`."""
