"""Two processes train what one does: started by torch's elastic launch, summing by gloo on the CPU."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from group_training import HANDED_OVER, PLAIN, RESUMED, REWARDS, Result, run_all, train_plainly, train_with_a_stop
from toy_training import Toy
from two_processes import in_two_processes
from vr_pipeline.engine.groups import Group
from vr_pipeline.errors import InputError
from vr_pipeline.training.preference_trainer import train_on_pairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def group(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Result], dict[str, Result]]:
    """What both processes of a group hold after all trainings."""
    folder = tmp_path_factory.mktemp("group")
    (folder / "toy.pickle").write_bytes(pickle.dumps(toy))
    results = in_two_processes(run_all, str(folder))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [HANDED_OVER, "toy.pickle", *(f"{name}.safetensors" for name in RESUMED)]
    )
    return results


@pytest.fixture(scope="module")
def handed_over(group: tuple[dict[str, Result], dict[str, Result]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the group left."""
    return next(tmp_path_factory.getbasetemp().glob(f"group*/{HANDED_OVER}"))


def largest_difference(first: Result, second: Result) -> float:
    assert first.tensors.keys() == second.tensors.keys()
    return max(float((first.tensors[name] - second.tensors[name]).abs().max()) for name in first.tensors)


# The optimiser divides by the gradient's size, so that rounding shows in weights whose gradient is next to nothing.
@pytest.mark.parametrize("name", PLAIN)
def test_two_processes_make_the_policy_of_one(
    name: str, toy: Toy, group: tuple[dict[str, Result], dict[str, Result]]
) -> None:
    alone = train_plainly(toy, {key: value for key, value in PLAIN[name].items() if key != "sharding"})
    for process in group:
        assert largest_difference(process[name], alone) < 1e-5
        assert list(process[name].log.columns) == list(alone.log.columns)
        np.testing.assert_allclose(process[name].log, alone.log, rtol=1e-4, atol=1e-5)
    assert group[0][name].log["loss"].iloc[0] == torch.tensor(2.0).log().item()
    assert largest_difference(group[0][name], group[1][name]) == 0.0


@pytest.mark.parametrize("name", RESUMED)
def test_stopped_and_started_again_two_processes_keep_the_best_average_of_one(
    name: str, toy: Toy, group: tuple[dict[str, Result], dict[str, Result]]
) -> None:
    alone = train_with_a_stop(toy, {key: value for key, value in RESUMED[name].items() if key != "sharding"}, None)
    main, other = (process[f"{name}, resumed"] for process in group)
    assert largest_difference(main, alone) < 1e-5
    assert largest_difference(main, other) == 0.0
    assert main.log["validation_reward"].dropna().tolist() == list(REWARDS.values())
    np.testing.assert_allclose(main.log, alone.log, rtol=1e-4, atol=1e-5)
    # Before and after each judgement, and the result; the second start resumes after step 4, which was judged.
    assert main.written == [2, 2, 4, 4, 6, 6, 6]
    assert other.written == []
    assert main.judged == [2, 4, 6]
    # One process alone tells the rows; on starting again those of before the stop once more.
    assert [row["step"] for row in main.told] == [1, 2, 2, 3, 4, 4, 1, 2, 3, 4, 5, 6, 6]
    assert other.told == []
    # With weights in slices all processes are needed to make the clips of a checkpoint.
    assert other.judged == ([2, 4, 6] if name == "sharded" else [])
    assert np.abs(main.clips.astype(int) - alone.clips.astype(int)).max() <= 1


@pytest.mark.parametrize("name", RESUMED)
def test_a_finished_training_is_taken_up_by_all_processes(
    name: str, group: tuple[dict[str, Result], dict[str, Result]]
) -> None:
    for process in group:
        before, again = process[f"{name}, resumed"], process[f"{name}, finished"]
        assert largest_difference(again, before) == 0.0
        assert again.log.equals(before.log)
        assert (again.judged, again.written) == ([], [])


def test_one_process_takes_up_what_two_left(toy: Toy, handed_over: Path, tmp_path: Path) -> None:
    file = tmp_path / HANDED_OVER
    shutil.copy(handed_over, file)
    alone = train_with_a_stop(toy, RESUMED["sharded"], None)
    taken_up = train_with_a_stop(toy, RESUMED["sharded"], file)
    assert taken_up.judged == [6]
    assert largest_difference(taken_up, alone) < 1e-5
    np.testing.assert_allclose(taken_up.log, alone.log, rtol=1e-4, atol=1e-5)


def test_a_step_that_cannot_be_shared_evenly_is_rejected(toy: Toy) -> None:
    with pytest.raises(InputError, match="4 pairs per step cannot be divided evenly among 3 processes"):
        toy.parameters().check_generator("float32", 3)


def test_one_process_alone_has_nothing_to_shard(toy: Toy) -> None:
    sharded = train_plainly(toy, {**PLAIN["sharded"], "steps": 2})
    assert largest_difference(sharded, train_plainly(toy, {**PLAIN["full"], "steps": 2})) == 0.0


def test_shares_cover_all_items_once() -> None:
    shares = [Group(rank, 3).share(range(9)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(9))


def test_processes_that_see_different_checkpoints_are_told(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the main process of a group says: it resumed after step 4.
    monkeypatch.setattr(Group, "from_main", lambda self, value: 4)
    with pytest.raises(InputError, match="different checkpoints"):
        train_on_pairs(toy.generator(), toy.data, toy.parameters(), checkpoint=tmp_path / "x")
