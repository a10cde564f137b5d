"""Generated weights against the published equations, written out independently."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coronet_plugin import Compression, OptionError, example_input, find_channels
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods.hypernetwork import FoldedKernel, Hypernetwork, PublishedKernel


def randomised(kernel):
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.normal_()
    return kernel.double()


def test_published_kernel_equals_the_equations_entry_by_entry():
    torch.manual_seed(0)
    n, m, t, e = 3, 4, 9, 8
    kernel = randomised(PublishedKernel(n, m, t, e))
    z_in, z_out = torch.randn(n).double(), torch.randn(m).double()
    got = kernel(z_in, z_out).detach().numpy()
    p = {name: value.detach().numpy() for name, value in kernel.named_parameters()}
    for i in range(n):
        for j in range(m):
            latent = z_in[i].item() * z_out[j].item() + p["b0"][i, j]  # (1)
            embedding = latent * p["w1"][i, j] + p["b1"][i, j]  # (2)
            expected = p["w2"][i, j] @ embedding + p["b2"][i, j]  # (3)
            np.testing.assert_allclose(got[i, j], expected, rtol=1e-12)


def test_published_kernel_is_affine_in_the_product_of_latents():
    torch.manual_seed(0)
    kernel = randomised(PublishedKernel(5, 6, 16, 8))
    z_in, z_out = torch.randn(5).double(), torch.randn(6).double()
    scale = torch.einsum("ijte,ije->ijt", kernel.w2, kernel.w1)
    shift = scale * kernel.b0[..., None] + torch.einsum("ijte,ije->ijt", kernel.w2, kernel.b1) + kernel.b2
    expected = scale * (z_in[:, None] * z_out)[..., None] + shift
    torch.testing.assert_close(kernel(z_in, z_out), expected, rtol=1e-12, atol=1e-12)


def test_folded_kernel_is_the_same_function():
    torch.manual_seed(0)
    published = randomised(PublishedKernel(4, 5, 9, 8))
    folded = FoldedKernel(4, 5, 9).double()
    with torch.no_grad():
        folded.b0.copy_(published.b0)
        folded.scale.copy_((published.w2 * published.w1.unsqueeze(2)).sum(-1))
        folded.shift.copy_((published.w2 * published.b1.unsqueeze(2)).sum(-1) + published.b2)
    z_in, z_out = torch.randn(4).double(), torch.randn(5).double()
    torch.testing.assert_close(folded(z_in, z_out), published(z_in, z_out), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [PublishedKernel, FoldedKernel])
def test_initial_weights_have_the_published_variance(kernel):
    torch.manual_seed(0)
    n, m, t = 64, 64, 9
    weights = kernel(n, m, t)(torch.ones(n), torch.ones(m))
    assert weights.var().item() == pytest.approx(1 / (n * t), rel=0.05)


def test_weights_land_in_each_convolution_with_its_own_orientation():
    torch.manual_seed(0)
    generator = build_generator(3, 3, 4, "unet_128", "batch")
    plan = find_channels(generator, example_input(generator, 128))
    hypernetwork = Hypernetwork(plan)
    z = hypernetwork.z()
    shapes = {name: tuple(p.shape) for name, p in generator.named_parameters() if p.ndim == 4}
    assert set(hypernetwork.names) == set(shapes)  # every convolution is generated
    for index, name in enumerate(hypernetwork.names):
        weight = hypernetwork.weight(index, z)
        assert tuple(weight.shape) == shapes[name]
    # the outermost transposed convolution: weight (in, out, k, k), inputs are encoder then decoder latents
    index = hypernetwork.names.index("model.model.3.weight")
    z_in = torch.cat([hypernetwork.latents[0], hypernetwork.latents[-1]])
    expected = hypernetwork.kernels[index](z_in, torch.ones(3)).reshape(shapes["model.model.3.weight"])
    torch.testing.assert_close(hypernetwork.weight(index, z), expected, rtol=0, atol=0)


def test_image_channels_have_latent_one_and_get_no_gradient_of_their_own():
    generator = build_generator(3, 3, 4, "resnet_6blocks", "instance")
    plan = find_channels(generator, example_input(generator, 32))
    hypernetwork = Hypernetwork(plan)
    assert sum(z.numel() for z in hypernetwork.latents) == plan.units
    assert hypernetwork.z()[0] == 1
    first = hypernetwork.names.index("model.1.weight")
    z = hypernetwork.z()
    expected = hypernetwork.kernels[first](torch.ones(3), z[1:5]).transpose(0, 1).reshape(4, 3, 7, 7)
    torch.testing.assert_close(hypernetwork.weight(first, z), expected, rtol=0, atol=0)


def test_unknown_form_is_refused():
    generator = build_generator(3, 3, 4, "resnet_6blocks", "instance")
    with pytest.raises(OptionError, match="'fancy' does not exist; choose one of gates, .*published, folded"):
        Compression(generator, example_input(generator, 32), search_steps=1, budget=0.5, method="fancy")
