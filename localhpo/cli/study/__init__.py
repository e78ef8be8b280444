"""Commands on studies: `run`, and all that lists, follows or adds to a study."""
