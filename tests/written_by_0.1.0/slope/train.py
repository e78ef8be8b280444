"""A training without randomness: reports four steps of a score that is best at one place."""

import json
import math
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Report, or fail where the depth is 7; where it goes badly, be slow and stop when told to."""
    config = json.loads(Path(os.environ["LOCALHPO_CONFIG"]).read_text(encoding="utf-8"))
    if config["depth"] == 7:
        sys.exit("depth 7 is not supported")
    far = abs(math.log10(config["rate"]) + 2.5) + abs(config["depth"] - 4) / 4
    far += config.get("slack", 0.2)
    stop = Path(os.environ["LOCALHPO_TRIAL_DIR"], "stop")
    for step in range(1, 5):
        if stop.exists():
            return
        value = round(1 / (1 + far) - 0.1 / step - (0.05 if step == 4 else 0.0), 6)
        line = {"step": step, "val_acc": value, "loss": round(far, 6), "time": 1.8e9 + step}
        with Path(os.environ["LOCALHPO_METRICS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        time.sleep(0.4 if far > 3.0 else 0.0)


if __name__ == "__main__":
    main()
