"""Small tasks on embedded digits, and a store that holds their networks."""

import pytest
import torch

from pellucid.attacks import FGSM, PGD
from pellucid.data import Digits
from pellucid.interpreters import CAM, Gradient
from pellucid.models import RossCNN, SmallCNN
from pellucid.optimisers import Adam
from pellucid.store import Store
from pellucid.tasks import Evaluate, Explain, InputGradients, Options, Train, Watch, run

DATA = Digits(train=60, validation=20, test=25)
FAST = Options(device="cpu", checkpoint_seconds=0)
ROSS = Train(
    data=DATA, model=RossCNN(filters=(3, 4), hidden=12), optimiser=Adam(lr=1e-2), steps=9, batch_size=20, log_every=4
)
SMALL = Train(data=DATA, model=SmallCNN(filters=(3, 4, 5)), optimiser=Adam(lr=1e-2), epochs=4, batch_size=20)
ATTACKED = Evaluate(network=ROSS, judges=(SMALL,), data=DATA, attack=FGSM(eps=0.1), epsilons=(0.0, 0.1, 0.3), chunk=10)
EXPLAINED = Explain(
    network=SMALL, data=DATA, attack=PGD(eps=0.1, steps=3), interpreters=(Gradient(), CAM()), images=12, chunk=5
)
NORMS = InputGradients(network=SMALL, data=DATA, images=12, chunk=5)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class Journal(Watch):
    """Writes down what it is told; dies where it is asked to."""

    def __init__(self, die_at=None):
        self.lines, self.die_at = [], die_at

    def planned(self, steps):
        self.lines.append(("planned", [step.done for step in steps]))

    def started(self, task):
        self.lines.append(("started", task))

    def progressed(self, done, total, **numbers):
        self.lines.append((done, total))
        if self.die_at == (done, total):
            raise Killed

    def finished(self, task, result):
        self.lines.append(("finished", task))

    def tasks(self, word):
        return [what for said, what in self.lines if said == word]


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Small batches are slower with more, and weights differ in the last bit between thread counts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def filled(tmp_path_factory, one_thread):
    """A store with everything above; read it, or copy it."""
    store = Store(tmp_path_factory.mktemp("filled") / "store")
    for task in (ATTACKED, EXPLAINED, NORMS):
        run(task, store, FAST)
    return store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")
