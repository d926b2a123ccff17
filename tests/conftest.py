"""One thread for everything that tests start: tensors are small, and two processes of tests run side by side."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also of the subprocesses; before torch is imported
