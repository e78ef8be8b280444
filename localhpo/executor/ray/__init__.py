"""Runs trials on the nodes of a Ray cluster. Nothing here loads Ray before it is used.

A trial is a Ray actor: its process runs the trial as `localhpo.executor.process` does on one
machine, below the same supervisor, with the same limits and the same diagnosis. The actor holds
the CPUs, the GPUs and (where the task limits it) the memory of the trial, so that Ray counts
them, and `CUDA_VISIBLE_DEVICES` is what Ray grants on the node. Store and model stay with the
driver, the process that runs the study; it asks the actor for news several times a second.

What must hold (an error says which of it does not):

- the machine that runs the study is a node of the cluster (`ray start --address=HEAD:6379
  --num-cpus=0` makes it one that runs no trials);
- Ray, Python and LocalHPO are of the same version on all nodes;
- the folder of the task (`[task] cwd`) is there on each node under the same path, on a shared
  file system or as part of the image. It is not shipped with Ray's `working_dir`: that refuses
  folders over some hundred megabytes, copies data and earlier studies along with the script, and
  leaves paths out of the folder, in the command and in the script, pointing nowhere.

A trial's own folder is a temporary one on its node, so it need not be shared. What it holds
already (a checkpoint of an interrupted run) is sent there. Metrics and output come back while
the trial runs, all other files when it has ended.

A lost node, or an actor that dies without the trial's doing, interrupts the trial; it runs again
on another node, under its own number, up to `executor.RETRIES` times.

What is not covered, besides what stands at the top of `localhpo.executor.supervisor`:

- files a trial has written go with a lost node, but for metrics and output. A checkpoint that
  must outlive it belongs on the shared file system;
- a node that the cluster has lost but that still runs ends its trials when its own part of Ray
  ends; until then a trial may run twice;
- the loss of the head, or of the driver's own node, ends the study; run again, it goes on;
- a trial inherits its priority from Ray's workers, which by default give way to whatever else
  runs on the node (niceness 15; RAY_worker_niceness=0 before `ray start` changes that);
- Ray reports no usage from the driver or its actors. Whether the cluster itself does is decided
  where it is started: RAY_USAGE_STATS_ENABLED=0 before `ray start --head`.
"""

from localhpo.executor.ray.cluster import Node
from localhpo.executor.ray.executor import RayExecutor

__all__ = ["Node", "RayExecutor"]
