"""Many networks at once are each alone; their meta-gradients are the project's own; what is hidden has no say."""

from __future__ import annotations

import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.meta import meta_gradient
from metadarts.predictor.tabular.learner import (
    Pool,
    Recipe,
    TrainingSet,
    _Draws,
    _episodes,
    _visible,
    from_scratch,
    meta_gradients,
    meta_train,
    ranked,
)
from metadarts.predictor.tabular.network import LOSSES, TRUST, initial, loss, rescaled, start
from metadarts.predictor.tabular.tables import Bench, spearman

TASKS, SIZE, FEATURES = 5, 60, 6
RECIPE = Recipe(shots=(0, 4, 8), width=8, meta_steps=3, inner_steps=2, episodes=3, queries=12)


def bench(by_rank: bool = True, groups: dict[str, tuple[int, ...]] | None = None) -> Bench:
    noise = Key.from_seed(0).child("bench").numpy()
    encoding = noise.standard_normal((SIZE, FEATURES)).astype(np.float32)
    values = noise.standard_normal((TASKS, FEATURES)) @ encoding.T.astype(np.float64)
    groups = groups or {str(task): (task,) for task in range(TASKS)}
    names = tuple(map(str, range(TASKS)))
    return Bench("made up", encoding, names, ("unit",) * TASKS, values, values, groups, by_rank)


def training_sets(count: int, tasks: tuple[int, ...] = (0, 1, 2, 3)) -> list[TrainingSet]:
    return [TrainingSet(tasks, Key.from_seed(seed).child("lesson")) for seed in range(count)]


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside"])
def test_gradient_is_the_projects_own_meta_gradient(kind, others):
    recipe = replace(RECIPE, loss=kind, others=others)
    pool, training_set = Pool.of(bench()), training_sets(1)
    draws = [_Draws(training_set[0], recipe, SIZE)]
    support, query, counts = _episodes(pool, _visible(pool, training_set), draws, recipe, 0)
    params = initial([training_set[0].key], FEATURES, recipe.width, others)
    rates = {f"rates.{name}": torch.full((1, 2), 0.1) for name in params}
    found = meta_gradients(params, rates, support, query, counts, recipe)

    problem = types.SimpleNamespace(
        start=lambda shared, batch, at: start(shared, TASKS, counts),
        support_loss=lambda own, batch, at: loss(own, batch.support, kind),
        query_loss=lambda own, batch, at: (loss(own, batch.query, kind), torch.zeros(batch.tasks)),
    )
    batch = types.SimpleNamespace(support=support, query=query, tasks=support.tasks)
    batch.slice = lambda first, last: batch  # all at once: nothing is cut
    batch.channels_last = lambda: batch  # it has no images
    shared, own = ({name: tensor[0] for name, tensor in side.items()} for side in (params, rates))
    expected = meta_gradient(problem, shared, batch, recipe.inner, rates=own).gradients
    assert expected.keys() == found.keys()
    assert any(gradient.abs().max() > 1e-4 for name, gradient in expected.items() if name.startswith("rates."))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name][0], gradient, rtol=1e-4, atol=1e-6)


def test_networks_side_by_side_are_each_alone():
    pool, several = Pool.of(bench()), [*training_sets(2), *training_sets(2, (1, 2, 4))]
    together = meta_train(pool, several, RECIPE)
    for number, training_set in enumerate(several):
        alone = meta_train(pool, [training_set], RECIPE)
        for side in ("params", "rates"):
            for name, tensor in getattr(alone, side).items():
                torch.testing.assert_close(getattr(together, side)[name][number], tensor[0], rtol=1e-3, atol=1e-4)


def test_learned_start_beats_a_random_one():
    """Every task is one direction of a plane in 20 dimensions: a prepared start knows the plane."""
    noise = Key.from_seed(1).child("directions").numpy()
    encoding = noise.standard_normal((300, 20)).astype(np.float32)
    plane = noise.standard_normal((20, 2))
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ (encoding.astype(np.float64) @ plane).T
    groups = {str(task): (task,) for task in range(8)}
    names = tuple(groups)
    made = Bench("plane", encoding, names, ("unit",) * 8, values, values, groups, by_rank=True)
    pool = Pool.of(made)
    recipe = replace(RECIPE, meta_steps=150, others=False, loss="squared", shots=(8,), width=16, inner_steps=3)
    trained = meta_train(pool, training_sets(1, tuple(range(7))), recipe)
    rows = np.stack([Key.from_seed(seed).choose(300, 8) for seed in range(8)]).astype(np.int64)
    known = torch.from_numpy(rows), torch.from_numpy(values[7][rows])
    adapted = ranked(pool, trained, [0] * 8, *known)
    scratch = from_scratch(pool, [Key.from_seed(seed) for seed in range(8)], *known, 30, 16)
    before, after = (np.mean([spearman(row, values[7]) for row in scores]) for scores in (scratch, adapted))
    assert after > before + 0.1


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside"])
def test_left_out_task_has_no_say(others):
    made, recipe = bench(), replace(RECIPE, others=others)
    spoilt = replace(made, valid=np.concatenate([made.valid[:4], 100 - made.valid[4:] ** 3]))
    rows = torch.arange(8).view(1, 8)
    values = torch.from_numpy(made.valid[4][:8]).view(1, 8)
    scores = []
    for one in (made, spoilt):
        pool = Pool.of(one)
        trained = meta_train(pool, training_sets(1), recipe)
        scores.append(ranked(pool, trained, [0], rows, values))
    np.testing.assert_array_equal(*scores)


def test_hidden_values_may_be_nan():
    pool = Pool.of(bench())
    pool.scores[:, 4] = torch.nan
    trained = meta_train(pool, training_sets(2), RECIPE)
    assert np.isfinite(ranked(pool, trained, [0, 1], torch.zeros(2, 0).long(), torch.zeros(2, 0))).all()


def test_episode_hides_its_task_and_its_kin():
    made = bench(groups={"a": (0, 1), "b": (2,), "c": (3,), "d": (4,), "wide": (0, 1, 2)})
    pool, training_set = Pool.of(made), [TrainingSet(tuple(range(TASKS)), Key.from_seed(3))]
    recipe = replace(RECIPE, episodes=40, mixing=True, shots=(8,))
    draws = [_Draws(training_set[0], recipe, SIZE)]
    support, query, counts = _episodes(pool, _visible(pool, training_set), draws, recipe, 0)
    for episode, (first, second) in enumerate(draws[0].pairs[0].tolist()):
        hidden = {0, 1} if {first, second} & {0, 1} else set()
        hidden |= {first, second}
        for side in (support, query):
            seen = {task for task in range(TASKS) if side.others[episode, :, task].any()}
            assert seen == set(range(TASKS)) - hidden
        assert counts[episode] == TASKS - len(hidden)


def test_without_mixing_an_episode_is_one_tasks():
    made = bench()
    pool, training_set = Pool.of(made), training_sets(1)
    recipe = replace(RECIPE, mixing=False, shots=(8,))
    draws = [_Draws(training_set[0], recipe, SIZE)]
    support, _, _ = _episodes(pool, _visible(pool, training_set), draws, recipe, 0)
    for episode, (task, again) in enumerate(draws[0].pairs[0].tolist()):
        assert task == again
        rows = draws[0].rows[0, episode, :8].numpy()
        expected = rescaled(torch.from_numpy(made.valid[task][rows])[None], torch.ones(1, 8).bool(), True)
        torch.testing.assert_close(support.targets[episode], expected[0].float(), rtol=1e-4, atol=1e-5)


def test_without_known_architectures_the_start_itself_ranks():
    made = bench()
    pool = Pool.of(made)
    trained = meta_train(pool, training_sets(1), RECIPE)
    untouched = ranked(pool, trained, [0], torch.zeros(1, 0).long(), torch.zeros(1, 0))
    moved = ranked(pool, trained, [0], torch.arange(8).view(1, 8), torch.from_numpy(made.valid[4][:8]).view(1, 8))
    assert np.isfinite(untouched).all()
    assert np.abs(untouched - moved).max() > 1e-3


def test_trust_begins_as_the_mean_of_the_visible_tasks():
    pool = Pool.of(bench())
    params = initial([Key.from_seed(0)], FEATURES, 8, others=True)
    for name in params:
        if name.startswith("last"):
            params[name] = torch.zeros_like(params[name])
    from metadarts.predictor.tabular.learner import Learned

    visible = torch.tensor([[True, True, False, True, False]])
    learned = Learned(params, {}, visible, RECIPE)
    scores = ranked(pool, learned, [0], torch.zeros(1, 0).long(), torch.zeros(1, 0))
    np.testing.assert_allclose(scores[0], pool.scores[:, [0, 1, 3]].mean(1).numpy(), rtol=1e-4, atol=1e-5)
    assert TRUST in params


def test_rescaled_values_are_of_the_known_rows_alone():
    values, known = torch.tensor([[3.0, 1.0, 2.0, 99.0]]), torch.tensor([[True, True, True, False]])
    by_rank = rescaled(values, known, by_rank=True)
    torch.testing.assert_close(by_rank[0, 2], torch.tensor(0.0))
    assert by_rank[0, 0] == -by_rank[0, 1] > 0.9
    assert by_rank[0, 3] == 0
    scaled = rescaled(values, known, by_rank=False)
    torch.testing.assert_close(scaled[0, :3], torch.tensor([1.0, -1.0, 0.0]) * 1.5**0.5, rtol=1e-4, atol=1e-4)
    assert scaled[0, 3] == 0
    tied = rescaled(torch.tensor([[5.0, 5.0]]), torch.ones(1, 2).bool(), by_rank=True)
    torch.testing.assert_close(tied, torch.zeros(1, 2), rtol=0, atol=1e-6)


def test_unknown_loss_is_named():
    with pytest.raises(ConfigError, match="did you mean 'pairs'"):
        Recipe(loss="pair")
