"""Small networks for every reader, and one thread."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class Everything(nn.Module):
    """One of each operation that a torch exporter writes, on (N, 3, 8, 8)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout()
        self.middle = nn.Linear(8, 5)
        self.flat_norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 3, bias=False)
        for norm in (self.norm, self.flat_norm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = (x - 0.25) / 0.5
        x = F.max_pool2d(F.relu(self.norm(self.first(x)), inplace=True), 2)
        y = F.relu6(self.second(x))
        y += x
        y = F.avg_pool2d(y, 2)
        y = torch.cat([y, F.hardtanh(y, 0, 2.0)], 1)
        y = self.pool(y) + y.clamp(0, 3.0).mean((2, 3), keepdim=True)
        y = self.flat_norm(self.middle(self.drop(torch.flatten(y, 1))))
        return self.last(F.relu(y.view(y.size(0), -1)))


@pytest.fixture
def everything():
    return Everything().eval()
