"""The controller of wake and sleep as a Lava process."""

from lava_casc.loihi.controller.process import WakeSleepController

__all__ = ["WakeSleepController"]
