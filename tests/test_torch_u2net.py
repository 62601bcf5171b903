import goldens
import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch_u2net = pytest.importorskip("torch_u2net")


@pytest.mark.parametrize("name", ["u2netp", pytest.param("u2net", marks=pytest.mark.long)])
def test_torch_u2net_reproduces_the_official_outputs(name):
    model = torch_u2net.from_state_dict(name, goldens.formula_state_dict(name))
    for shape, expected in goldens.eval_cases(name).items():
        image = torch.from_numpy(goldens.image(goldens.SEED, *shape).transpose(0, 3, 1, 2))
        with torch.no_grad():
            matte = model(image).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(matte, expected["matte"], rtol=0, atol=2e-5)
