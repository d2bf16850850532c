"""Whose a feature is, on planted features of which we know it."""

import torch

from ft_audit.sae.latent_scaling import LatentScaling

D, NUM = 16, 4000
SHARED, TUNED_ONLY, HIDDEN, BASE_ONLY, DEAD = range(5)


def test_a_feature_that_the_base_hides_in_its_error_is_not_the_tuned_models_own() -> None:
    """HIDDEN stands in the base's activations, but the dictionary has it for the tuned model alone."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q[:5]
    act = (torch.rand(NUM, 5, generator=generator) < 0.2) * (1 + torch.rand(NUM, 5, generator=generator))
    act[:, DEAD] = 0.0
    zero = torch.zeros(D)
    base = torch.stack([direction[0], zero, direction[2], direction[3], zero])
    tuned = torch.stack([direction[0], direction[1], direction[2], zero, zero])
    noise = [0.05 * torch.randn(NUM, D, generator=generator) for _ in range(2)]
    bias = 50 * torch.randn(2 * D, generator=generator)
    x = torch.cat([act @ base + noise[0], act @ tuned + noise[1]], 1) + bias
    decoder = torch.cat([base, tuned], 1)
    decoder[HIDDEN, :D] = 0.0
    decoder[DEAD] = 1.0
    scaling = LatentScaling(decoder, bias)
    for part in torch.arange(NUM).split(700):
        scaling.add(act[part], x[part], act[part] @ decoder + bias)
    found = scaling.ratios()
    assert found.tuned_only_F.tolist() == [False, True, False, False, False]
    torch.testing.assert_close(
        found.error_F[HIDDEN], torch.tensor(1.0, dtype=torch.float64), atol=0.05, rtol=0
    )
    torch.testing.assert_close(
        found.reconstruction_F[SHARED], torch.tensor(1.0, dtype=torch.float64), atol=0.05, rtol=0
    )
    assert abs(float(found.error_F[TUNED_ONLY])) < 0.05
    assert found.error_F[DEAD].isnan()
    assert found.norm_share_F[:4].tolist() == [0.5, 1.0, 1.0, 0.0]
