"""Work for other machines: folders that hold all that a run needs, SLURM, and what came back."""

from lava_casc.cluster.folder import JobFolder, Settings, Task, make_folder, open_folder
from lava_casc.cluster.launch import Host, State, cancel, launch, look
from lava_casc.cluster.merge import Difference, collect, missing, read_part
from lava_casc.cluster.spread import spread

__all__ = [
    "Difference",
    "Host",
    "JobFolder",
    "Settings",
    "State",
    "Task",
    "cancel",
    "collect",
    "launch",
    "look",
    "make_folder",
    "missing",
    "open_folder",
    "read_part",
    "spread",
]
