"""Training methods of the papers under the names that people know them by."""

from pellucid.attacks import FGSM, PGD, StAdv
from pellucid.defences.adversarial import AdversarialTraining
from pellucid.defences.interpretability import InterpretabilityAware
from pellucid.spec import preset

# Ross & Doshi-Velez 2018: FGSM with eps 0.3 against the network's own predictions, half clean and half adversarial.
preset("defence", "fgsm_training", AdversarialTraining())

# Madry et al. 2018, as Boopathy et al. 2020 train on MNIST ("Adv").
preset("defence", "pgd_training", AdversarialTraining(attack=PGD(eps=0.3, steps=40, step_size=0.01), share=1.0))

# Zhang & Zhu 2019, CIFAR-10, their code: no random start, every second batch clean; sign steps in the l2 ball.
preset(
    "defence",
    "pgd_l2_training",
    AdversarialTraining(
        attack=PGD(
            norm="l2",
            eps=1.2,
            step_size=6 / 255,
            steps=20,
            random_start=False,
            direction="sign",
            order="box_ball",
        ),
        share=1.0,
        batches="alternate",
    ),
)
preset(
    "defence",
    "zhang_pgd_training",
    AdversarialTraining(
        attack=PGD(eps=8 / 255, step_size=4 / 255, steps=20, random_start=False), share=1.0, batches="alternate"
    ),
)
preset("defence", "zhang_fgsm_training", AdversarialTraining(attack=FGSM(eps=8 / 255), share=1.0, batches="alternate"))
preset("defence", "stadv_training", AdversarialTraining(attack=StAdv(form="zhang"), share=1.0, batches="alternate"))

# Boopathy et al. 2020.
INTERPRETABILITY_AWARE = {
    "int_one_class": InterpretabilityAware(classes="one"),
    "int": InterpretabilityAware(),
    "int_adv": InterpretabilityAware(adversarial=True),
    "int2": InterpretabilityAware(inner="cross_entropy"),
    "int2_adv": InterpretabilityAware(inner="cross_entropy", adversarial=True),
}
for name, method in INTERPRETABILITY_AWARE.items():
    preset("defence", name, method)
