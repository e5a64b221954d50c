"""What users pass to layers, losses and rules, and what their own return, is checked before kernels work on it."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim, rl
from dist_relu.nn.layers.activations import Elementwise
from dist_relu.partition import PartialSums
from tests.twin import Array

IMAGES, SEQUENCES, ROWS = (6, 5, 4), (5, 3), (6,)
LAYERS: list[tuple[Callable[[], nn.Layer], tuple[int, ...]]] = [
    (lambda: nn.Dense(3), ROWS),
    (lambda: nn.Conv2d(4, 3), IMAGES),
    (lambda: nn.Conv2d(4, 3, groups=4), IMAGES),
    (lambda: nn.MaxPool2d(2), IMAGES),
    (lambda: nn.AvgPool2d(2), IMAGES),
    (nn.GlobalAvgPool2d, IMAGES),
    (nn.FromNCHW, IMAGES),
    (nn.Flatten, IMAGES),
    (lambda: nn.Reshape((3, 2)), ROWS),
    (nn.BatchNorm, ROWS),
    (nn.LayerNorm, ROWS),
    (nn.Dropout, ROWS),
    (lambda: nn.ActivityPenalty(0.1), ROWS),
    (lambda: nn.Residual([nn.Dense(6), nn.ReLU(), nn.Dense(6)]), ROWS),
    (lambda: nn.Parallel([[nn.Dense(3), nn.ReLU()], [nn.Dense(2)]]), ROWS),
    (lambda: nn.RNN(4), SEQUENCES),
    (lambda: nn.RNN(4, sequences=True), SEQUENCES),
    (lambda: nn.Embedding(2, 3), ROWS),
    (nn.ReLU, ROWS),
    (nn.GELU, ROWS),
    (lambda: nn.PReLU(6), ROWS),
    (nn.RReLU, ROWS),
    (nn.CReLU, ROWS),
    (nn.Softmax, ROWS),
    (nn.SwiGLU, ROWS),
    (nn.GLU, ROWS),
    (nn.ReGLU, ROWS),
    (nn.LogSoftmax, ROWS),
    (lambda: nn.Standardize([0.1] * 6, [2.0] * 6), ROWS),
    (lambda: nn.Categorical(5), ROWS),
    (lambda: nn.TanhGaussian([-1.0, -1.0], [1.0, 1.0]), (5,)),
]


def test_every_layer_is_tried_here() -> None:
    """Activations of single elements have one kernel loop among them, so two stand for all."""
    exported = [getattr(nn, name) for name in nn.__all__]
    layers = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, nn.Layer)}
    to_try = {kind for kind in layers if not inspect.isabstract(kind) and not issubclass(kind, Elementwise)}
    missing = to_try - {type(make()) for make, _ in LAYERS}
    assert not missing, f"give an example of {', '.join(kind.__name__ for kind in missing)} in LAYERS"


of_every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS)

FORMS: list[Callable[[Array], Any]] = [
    lambda x: x.astype(np.float64),
    lambda x: x.astype(">f4"),
    np.asfortranarray,
    lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    lambda x: np.broadcast_to(x, x.shape),
    lambda x: x.tolist(),
]


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


def samples(shape: tuple[int, ...], num: int = 3) -> Array:
    return np.random.default_rng(1).integers(0, 2, (num, *shape)).astype(np.float32)


def wrong_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Of samples that are not those of `shape`, which has the rows in front."""
    longer = [(*shape[:i], shape[i] + 40, *shape[i + 1 :]) for i in range(1, len(shape))]
    shorter = [(*shape[:i], shape[i] - 1, *shape[i + 1 :]) for i in range(1, len(shape))]
    return [*longer, *shorter, (*shape, 1), shape[:-1], shape[1:], ()]


@of_every_layer
def test_models_and_layers_refuse_arrays_of_other_shapes(make: Callable[[], nn.Layer], shape: tuple[int, ...]) -> None:
    model = nn.Sequential(make()).build(shape).initialize(0)
    layer = model.layers[0]
    for forward, backward in ((model.forward, model.backward), (layer.forward, layer.backward)):
        dy = np.ones_like(forward(samples(shape)))
        for wrong in wrong_shapes((3, *shape)):
            with pytest.raises(ValueError, match=r"x has shape .* expected \(N, "):
                forward(np.ones(wrong, np.float32))
        forward(samples(shape))
        for wrong in [*wrong_shapes(dy.shape), (4, *dy.shape[1:]), (0, *dy.shape[1:])]:
            with pytest.raises(ValueError, match=r"dy has shape .* expected \(3, "):
                backward(np.ones(wrong, np.float32))
        backward(dy)


@of_every_layer
def test_arrays_of_other_dtypes_and_orders_are_computed_with_in_the_models_own(
    make: Callable[[], nn.Layer], shape: tuple[int, ...]
) -> None:
    model = nn.Sequential(make()).build(shape).initialize(0)
    x = samples(shape)
    y = model.forward(x).copy()
    dy = np.random.default_rng(2).standard_normal(y.shape).astype(np.float32)
    dx, gradients = model.backward(dy).copy(), [param.grad.copy() for param in model.params]
    for form in FORMS:
        assert (model.forward(form(x)) == y).all()
        assert (model.backward(form(dy)) == dx).all()
        assert all((p.grad == g).all() for p, g in zip(model.params, gradients, strict=True))
    assert (model.forward(x.astype(np.uint8)) == y).all()
    assert (model.activations(x.astype(bool))[-1] == y).all()


def test_what_is_no_number_or_too_large_is_refused() -> None:
    model = nn.Sequential(nn.Dense(2)).build((1,)).initialize(0)
    for x in ([["a"]], [[1j]], [[None]], None, [[np.datetime64("2020-01-01")]]):
        with pytest.raises(ValueError, match="x "):
            model.forward(x)  # type: ignore[arg-type]
    with pytest.raises(dr.DataError, match=r"x\[1, 0\] is 1e\+300, too large for float32"):
        model.forward(np.array([[0.0], [1e300]]))


def test_models_that_are_not_ready_have_no_outputs() -> None:
    x = np.ones((2, 3), np.float32)
    model = nn.Sequential(nn.Dense(4), nn.Softmax())
    for use in (model.forward, model.activations):
        with pytest.raises(ValueError, match="was not built yet"):
            use(x)
    model.build((3,))
    for use in (model.forward, model.activations, model.layers[0].forward):
        with pytest.raises(ValueError, match="has no parameters yet"):
            use(x)
    assert (nn.Softmax().forward(x) == np.float32(1 / 3)).all()
    with pytest.raises(ValueError, match="Dense was not built yet"):
        nn.Dense(4).forward(x)


@pytest.mark.parametrize("name", ["input_shape", "output_shape", "layer_shapes", "params", "names", "num_params"])
def test_what_a_model_learns_when_it_is_built_is_not_there_before(name: str) -> None:
    model = nn.Sequential(nn.Dense(4))
    assert not model.is_built
    with pytest.raises(ValueError, match="was not built yet"):
        getattr(model, name)
    assert model.build((3,)).is_built
    assert getattr(model, name)


def test_the_parameters_of_a_model_are_not_there_before_they_are_drawn() -> None:
    model = nn.Sequential(nn.Dense(4)).build((3,))
    assert not model.has_values
    with pytest.raises(ValueError, match="no parameters yet: fit it, or build and initialize it"):
        _ = model.values
    with pytest.raises(ValueError, match="no parameters yet"):
        model.values = np.zeros(16, np.float32)
    assert model.initialize().has_values
    assert model.values.shape == (16,)


def test_backward_follows_the_forward_pass_that_was_last() -> None:
    model = nn.Sequential(nn.Dense(4), nn.ReLU(), nn.Residual([nn.Dense(4)])).build((3,)).initialize(0)
    few, many = np.ones((2, 3), np.float32), np.ones((50, 3), np.float32)
    dy = np.ones((2, 4), np.float32)
    dense, relu, residual = model.layers
    assert isinstance(residual, nn.Residual)
    with pytest.raises(ValueError, match="backward needs a `forward`"):
        model.backward(dy)
    for disturb in (
        lambda: model.activations(many),
        lambda: dense.forward(many),
        lambda: residual.body[0].forward(np.ones((50, 4), np.float32)),
    ):
        model.forward(few)
        disturb()
        with pytest.raises(ValueError, match="backward needs a `forward`"):
            model.backward(dy)
    dense.forward(few)
    model.forward(many)
    with pytest.raises(ValueError, match=r"Layer 0 \(Dense\): backward needs a forward pass"):
        dense.backward(dy)
    model.activations(few)
    for layer in (residual, relu, dense):
        dy = layer.backward(dy)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (copied.forward(few) == model.forward(few)).all()
        copied.backward(np.ones((2, 4), np.float32))


def test_layers_around_others_know_who_was_last_in_these() -> None:
    dense = nn.Dense(3)
    residual = nn.Residual([dense])
    residual.build((3,))
    for param in residual.params():
        param.value = np.ones(param.shape, np.float32)
    residual.forward(np.ones((2, 3)))
    dense.forward(np.ones((50, 3)))
    with pytest.raises(ValueError, match="Residual: backward needs a forward pass"):
        residual.backward(np.ones((2, 3)))
    residual.forward(np.ones((2, 3)))
    residual.backward(np.ones((2, 3)))
    with pytest.raises(ValueError, match="Dense: backward needs a forward pass"):
        dense.backward(np.ones((50, 3)))


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.zeros(15, np.float32), r"of shape \(16,\), not \(15,\)"),
        (np.zeros((4, 4), np.float32), r"not \(4, 4\)"),
        ([0.0] * 16, "not list"),
        (np.zeros(16), "float64; expected float32"),
        (np.zeros(32, np.float32)[::2], "do not lie in one piece"),
    ],
)
def test_parameters_are_a_vector_of_the_models_own_kind(vector: Any, message: str) -> None:
    model = nn.Sequential(nn.Dense(4)).build((3,)).initialize(0)
    before = model.sha256()
    with pytest.raises(ValueError, match=message):
        model.bind(vector)
    assert model.sha256() == before


def test_a_parameters_value_is_what_kernels_expect() -> None:
    weight = nn.Sequential(nn.Dense(4)).build((3,)).initialize(0).params[0]
    for wrong in (np.zeros((4, 3), np.float32), np.zeros((3, 4)), np.zeros((4, 3), np.float32).T):
        for name in ("value", "grad"):
            with pytest.raises(ValueError, match=rf"weight\.{name}"):
                setattr(weight, name, wrong)
    with pytest.raises(TypeError, match=r"weight\.value is a list"):
        weight.value = [1.0]  # type: ignore[assignment]


def test_initialisers_that_draw_another_shape_are_named() -> None:
    @dataclass(frozen=True)
    class Ones(nn.Initializer):
        def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
            return np.ones(shape[-1])

    with pytest.raises(ValueError, match=r"Ones\(\) drew float64 of shape \(4,\) for 0\.weight"):
        nn.Sequential(nn.Dense(4, init=Ones())).build((3,)).initialize(0)


@dataclass(eq=False)
class Own(nn.Layer):
    """ReLU, and then what somebody's own layer may make of it, forward and backward."""

    after: Callable[[Array], Any] = lambda y: y
    before: Callable[[Array], Any] = lambda dx: dx
    _x: Array = field(init=False, repr=False)

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> Sequence[nn.Param]:
        return []

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        self._x = x
        return self.after(np.maximum(x, 0, out=run.empty(x.shape, x.dtype)))  # type: ignore[no-any-return]

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        return self.before(dy * (self._x > 0))  # type: ignore[no-any-return]


def with_own(layer: nn.Layer, *, nested: bool = False) -> nn.Sequential:
    layers = [nn.Residual([layer, nn.Dense(16)])] if nested else [layer, nn.Dense(16)]
    return nn.Sequential(nn.Dense(16), *layers, nn.Dense(3)).build((5,)).initialize(0)


NONSENSE: list[tuple[Callable[[Array], Any], str]] = [
    (lambda y: y.astype(np.float64), r"returned an array of float64; expected float32"),
    (lambda y: y.astype(int), r"returned an array of int64; expected float32"),
    (lambda y: y[:, :3].copy(), r"returned an array of shape \(\d+, 3\); expected \(\d+, 16\)"),
    (lambda y: y.sum(axis=0, keepdims=True), r"returned an array of shape \(1, 16\); expected \(\d+, 16\)"),
    (lambda y: None, r"returned None; expected an array of shape \(\d+, 16\)"),
    (lambda y: y.tolist(), r"returned an object of type list"),
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("change", "message"), NONSENSE)
def test_what_layers_of_ones_own_return_is_checked(
    serial: dr.Coordinator, change: Callable[[Array], Any], message: str, nested: bool
) -> None:
    x, y = samples((5,), 20), np.arange(20) % 3
    place = r"Layer 1\.body\.0 \(Own\)" if nested else r"Layer 1 \(Own\)"
    bad = with_own(Own(after=change), nested=nested)
    for use in (
        lambda: serial.fit(bad, (x, y), optim.SGD(), epochs=1, batch_size=10),
        lambda: serial.gradients(bad, (x, y)),
        lambda: serial.evaluate(bad, (x, y)),
        lambda: serial.forward(bad, x),
        lambda: serial.activations(bad, x),
        lambda: bad.forward(x),
    ):
        with pytest.raises((TypeError, ValueError), match=rf"{place}: forward {message}"):
            use()
    bad = with_own(Own(before=change), nested=nested)
    with pytest.raises((TypeError, ValueError), match=rf"{place}: backward {message}"):
        serial.gradients(bad, (x, y))
    bad.forward(x)
    with pytest.raises((TypeError, ValueError), match=rf"{place}: backward {message}"):
        bad.backward(np.ones((20, 3), np.float32))


def read_only(y: Array) -> Array:
    copied = y.copy()
    copied.flags.writeable = False
    return copied


@pytest.mark.parametrize("change", [np.asfortranarray, read_only, lambda y: np.repeat(y, 2, axis=1)[:, ::2]])
def test_layers_of_ones_own_may_return_any_order(serial: dr.Coordinator, change: Callable[[Array], Array]) -> None:
    x, y = samples((5,), 20), np.arange(20) % 3
    expected = serial.gradients(with_own(nn.ReLU()), (x, y), shards=4)
    found = serial.gradients(with_own(Own(change, change)), (x, y), shards=4)
    assert all((found[name] == expected[name]).all() for name in expected)


def test_shapes_that_build_does_not_return_are_missed_where_they_should_be() -> None:
    @dataclass(eq=False)
    class Shapeless(Own):
        def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
            return None  # type: ignore[return-value]

    with pytest.raises(ValueError, match=r"Layer 0: Shapeless\.build returned None; expected the shape"):
        nn.Sequential(Shapeless(), nn.Dense(3)).build((5,))


def test_a_child_of_a_layer_of_ours_computes_what_it_says() -> None:
    @dataclass(eq=False)
    class Twice(nn.Dense):  # type: ignore[misc]
        def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
            return 2 * super().forward(x, run)

    x = samples((5,))
    plain = nn.Sequential(nn.Dense(4), nn.ReLU()).build((5,)).initialize(0)
    model = nn.Sequential(Twice(4), nn.ReLU()).build((5,)).initialize(0)
    assert (model.forward(x) == 2 * plain.forward(x)).all()


LOSSES: list[tuple[nn.Loss, Any]] = [
    (nn.CrossEntropy(), [0, 1, 9]),
    (nn.CrossEntropy(), [0, -1, 1]),
    (nn.CrossEntropy(0.1), [0, 1, 10**9]),
    (nn.CrossEntropy(), [0.0, 1.0, 1.0]),
    (nn.CrossEntropy(), [0, 1]),
    (nn.CrossEntropy(), [[0], [1], [1]]),
    (nn.MeanSquaredError(), np.ones((3, 5))),
    (nn.MeanSquaredError(), np.ones((2, 4))),
    (nn.MeanSquaredError(), np.ones(3)),
    (nn.MixedTargets(nn.CrossEntropy(), np.array([0, 1]), 0.5), [0, 1, 1]),
    (nn.MixedTargets(nn.CrossEntropy(), np.array([0, 1, 99]), 0.5), [0, 1, 1]),
    (rl.PPO().loss(nn.Categorical(3)), np.array([[0.0, 0, 0, 0], [3, 0, 0, 0], [1, 0, 0, 0]])),
    (rl.PPO().loss(nn.Categorical(3)), np.zeros((3, 3))),
]


@pytest.mark.parametrize(("loss", "targets"), LOSSES)
def test_losses_refuse_targets_that_do_not_suit_the_outputs(loss: nn.Loss, targets: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        loss.backward(np.zeros((3, 4), np.float32), targets, 1.0, np.zeros((3, 4), np.float32))


@pytest.mark.parametrize("d_outputs", [np.zeros((3, 4), int), np.zeros((4, 3)).T, np.zeros((3, 3)), [[0.0] * 4] * 3])
def test_losses_write_where_there_is_room(d_outputs: Any) -> None:
    with pytest.raises(ValueError, match=r"CrossEntropy\.backward"):
        nn.CrossEntropy().backward(np.zeros((3, 4)), np.zeros(3, int), 1.0, d_outputs)


@dataclass(frozen=True)
class OwnLoss(nn.Loss):
    """The sum of the outputs, from which `change` makes what is returned."""

    change: Callable[[float], Any]
    fills: bool = True

    def check(self, targets: Array, output_shape: tuple[int, ...]) -> None:
        pass

    def backward(self, outputs: Array, targets: Array, scale: float, d_outputs: Array) -> Any:
        if self.fills:
            d_outputs[...] = scale
        return self.change(outputs.sum())


@pytest.mark.parametrize(
    "change", [lambda loss: None, lambda loss: loss, lambda loss: (loss, None), lambda loss: 3 * [1]]
)
def test_what_losses_of_ones_own_return_is_checked(serial: dr.Coordinator, change: Callable[[float], Any]) -> None:
    data = samples((5,), 20), np.arange(20) % 3
    for use in (serial.gradients, serial.evaluate):
        with pytest.raises(TypeError, match=r"OwnLoss\.backward returned .*; expected two numbers"):
            use(with_own(nn.ReLU()), data, loss=OwnLoss(change))


def test_losses_of_ones_own_leave_the_whole_gradient(serial: dr.Coordinator) -> None:
    data = samples((5,), 20), np.arange(20) % 3
    with pytest.raises(ValueError, match=r"OwnLoss\.backward left elements of d_outputs as they were"):
        serial.gradients(with_own(nn.ReLU()), data, loss=OwnLoss(lambda loss: (loss, 0), fills=False))
    assert serial.gradients(with_own(nn.ReLU()), data, loss=OwnLoss(lambda loss: (loss, np.int64(0))))


def test_heads_of_policies_refuse_what_does_not_fit() -> None:
    head = nn.Categorical(3)
    outputs, actions, numbers = np.zeros((2, 4)), np.zeros((2, 1)), np.zeros(2)
    head.log_probs(outputs, actions, numbers, numbers.copy())
    for change in ({"outputs": np.zeros((2, 2))}, {"actions": np.full((2, 1), 3.0)}, {"log_probs": np.zeros(1)}):
        arrays = {"outputs": outputs, "actions": actions, "log_probs": numbers, "entropies": numbers.copy()} | change
        with pytest.raises(ValueError, match="Categorical: "):
            head.log_probs(*arrays.values())
    with pytest.raises(ValueError, match="noise is"):
        head.draw(outputs, np.zeros((1, 1)), actions)


def test_a_recurrence_refuses_states_that_do_not_fit() -> None:
    rnn = nn.RNN(4)
    nn.Sequential(rnn).build((5, 3)).initialize(0)
    for x, state in ((np.ones((2, 2)), None), (np.ones((2, 3)), np.ones((2, 5))), (np.ones((2, 3)), np.ones((1, 4)))):
        with pytest.raises(ValueError, match=r"RNN\.step: (x|state) has shape"):
            rnn.step(x, state)


@pytest.mark.parametrize("rule", [optim.SGD(momentum=0.9), optim.Adam(), optim.LARS(), optim.LAMB()])
def test_rules_refuse_vectors_that_do_not_fit(rule: optim.Optimizer) -> None:
    def vectors(size: int = 6, dtype: str = "float32") -> list[Array]:
        return [np.ones(size, dtype) for _ in range(1 + rule.num_states)]

    def take(gradient: Array, old: list[Array], new: list[Array], hyper: Array) -> None:
        if isinstance(rule, optim.ElementwiseOptimizer):
            sums = PartialSums(gradient.reshape(1, -1), 0, np.zeros(1, np.int64), np.empty((1, 1024), np.float32))
            rule.update(sums, old, new, hyper)
        else:
            assert isinstance(rule, optim.LayerwiseOptimizer)
            rule.direct(gradient, old, new, hyper, is_weight=True)
            rule.take(gradient, old, new, hyper, None)

    gradient, hyper = np.ones(6, np.float32), np.array(rule.hyper(0, 0.0), np.float32)
    take(gradient, vectors(), vectors(), hyper)
    for wrong in (
        (gradient[:5], vectors(), vectors(), hyper),
        (gradient, vectors(), vectors(7), hyper),
        (gradient, vectors()[:1], vectors(), hyper),
        (gradient, vectors(dtype="float64"), vectors(), hyper),
        (gradient, vectors(), vectors(), hyper.astype(float)),
    ):
        with pytest.raises(ValueError, match=r"."):
            take(*wrong)


def test_products_of_layers_of_ones_own_are_checked() -> None:
    weight = nn.Sequential(nn.Dense(4)).build((3,)).initialize(0).params[0]
    for x, dz in ((np.ones((2, 3)), np.ones((2, 4))), (np.ones((2, 3), "f4"), np.ones((5, 4), "f4"))):
        with pytest.raises(ValueError, match=r"run\.product of weight"):
            nn.PLAIN.product(weight, x, dz)


def test_scaling_of_weights_refuses_other_samples() -> None:
    model = nn.Sequential(nn.Dense(4), nn.ReLU()).build((3,)).initialize(0)
    for x in (np.ones((5, 4)), np.ones(3), np.ones((5, 3, 1))):
        with pytest.raises(ValueError, match=r"x has shape .*; expected \(N, 3\)"):
            nn.lsuv(model, x)


def test_labels_are_checked_where_they_are_read(serial: dr.Coordinator) -> None:
    """Workers hold copies of a data set, which its owner may change all the same."""
    data = dr.Dataset(samples((5,), 20), np.arange(20) % 10)
    serial.evaluate(nn.Sequential(nn.Dense(10)).build((5,)).initialize(0), data)
    data.y[:] = 0
    model = nn.Sequential(nn.Dense(3)).build((5,)).initialize(0)
    for use in (serial.evaluate, serial.gradients):
        with pytest.raises(dr.DataError, match="Label 3 of sample 3 is outside the classes 0 to 2"):
            use(model, data)


def test_random_changes_of_samples_stay_within_them(rng: np.random.Generator) -> None:
    x, out = samples((4, 4, 1), 5), np.empty((2, 4, 4, 1), np.float32)
    shape = dr.data.Augment(crop=1).image_shape(dr.Dataset(x, np.zeros(5, int)))
    for rows, target in ((np.array([0, 5]), out), (np.array([0, -1]), out), (np.array([0, 1, 2]), out)):
        with pytest.raises(ValueError, match=r"rows must be|out and scratch must be"):
            dr.data.Augment(crop=1).gather(x, rows, shape, rng, target, np.empty_like(target))


def test_a_pass_needs_a_run() -> None:
    model = nn.Sequential(nn.Dense(3)).build((5,)).initialize(0)
    with pytest.raises(TypeError, match="run=True: expected an object of type Pass"):
        model.forward(samples((5,)), True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "shape", "name", "value"),
    [
        (lambda: nn.Dense(3), ROWS, "units", 5000),
        (lambda: nn.Dense(3), ROWS, "offset", nn.Param("bias", (1,), nn.Constant(), 1, 1)),
        (lambda: nn.Conv2d(4, 3), IMAGES, "channels", 3000),
        (lambda: nn.Conv2d(4, 3), IMAGES, "groups", 4),
        (lambda: nn.RNN(4), SEQUENCES, "units", 4000),
        (lambda: nn.RNN(4), SEQUENCES, "sequences", True),
        (lambda: nn.Embedding(5, 3), ROWS, "symbols", 10**6),
        (lambda: nn.PReLU(6), ROWS, "num_parameters", 1),
    ],
)
def test_what_a_layer_was_built_with_is_fixed(
    make: Callable[[], nn.Layer], shape: tuple[int, ...], name: str, value: Any
) -> None:
    model = nn.Sequential(make()).build(shape).initialize(0)
    with pytest.raises(ValueError, match=rf"Layer 0 \(\w+\) was built, and its {name} is fixed since"):
        setattr(model.layers[0], name, value)
    setattr(make(), name, value)


def test_slopes_and_probabilities_may_change_all_the_time() -> None:
    model = nn.Sequential(nn.LeakyReLU(), nn.Dropout()).build((1,))
    leaky, dropout = model.layers
    leaky.negative_slope, dropout.p = 0.5, 0.25
    assert model.forward(np.array([[-2.0]])).tolist() == [[-1.0]]


@pytest.mark.parametrize("name", ["layers", "dtype", "input_shape", "output_shape", "params", "names"])
def test_what_a_model_was_built_with_is_fixed(name: str) -> None:
    model = nn.Sequential(nn.Dense(3)).build((5,)).initialize(0)
    with pytest.raises(ValueError, match=rf"A model's {name} can't be set"):
        setattr(model, name, None)
    with pytest.raises(ValueError, match=r"weight is in use, and keeps its shape: \(5, 3\)"):
        model.params[0].shape = (3, 5)


def test_numbers_that_a_parameter_is_given_are_those_of_its_model(serial: dr.Coordinator) -> None:
    model = nn.Sequential(nn.Dense(3)).build((5,)).initialize(0)
    weight = model.params[0]
    weight.value = np.ones((5, 3), np.float32)
    assert (model.views(model.values)[0] == 1).all()
    assert (serial.forward(model, np.ones((2, 5))) == 5).all()
    values = model.values
    model.values = np.full(model.num_params, 2.0, np.float32)
    assert model.values is values
    assert (model.forward(np.ones((2, 5))) == 12).all()


def test_a_layer_that_could_not_be_built_again_is_not_built() -> None:
    layer = nn.Parallel([[nn.Dense(2)]])
    layer.build((3,))
    with pytest.raises(ValueError, match="branch 0 gives shape"):
        layer.build((4, 3))
    with pytest.raises(ValueError, match="was not built yet"):
        layer.forward(np.ones((1, 3)))


@of_every_layer
def test_a_batch_may_be_empty(make: Callable[[], nn.Layer], shape: tuple[int, ...]) -> None:
    model = nn.Sequential(make()).build(shape).initialize(0)
    y = model.forward(np.ones((0, *shape)))
    assert y.shape == (0, *model.output_shape)
    assert model.backward(y).shape == (0, *shape)
    assert all((param.grad == 0).all() for param in model.params)


def test_a_recurrence_without_parameters_or_gradients_says_so() -> None:
    rnn = nn.RNN(4)
    with pytest.raises(ValueError, match=r"RNN\.step needs parameters"):
        rnn.step(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"RNN\.state_gradients needs a backward pass"):
        rnn.state_gradients(np.ones((2, 4)))
