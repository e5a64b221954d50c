"""Reinforcement learning: policies that learn from what they do, with the same bits on any number of workers.

Environments belong to shards, as samples do: a worker steps those of its own shards, keeps what they saw where it is,
and draws minibatches from it. Only gradients travel.
"""

from dist_relu.rl.algorithms import PPO, REINFORCE, Algorithm, PolicyLoss
from dist_relu.rl.environments import Env
from dist_relu.rl.evaluation import evaluate
from dist_relu.rl.export import numpy_policy, source
from dist_relu.rl.learning import LearningResult, policy_for, train
from dist_relu.rl.worker import LearningProgress

__all__ = [
    "PPO",
    "REINFORCE",
    "Algorithm",
    "Env",
    "LearningProgress",
    "LearningResult",
    "PolicyLoss",
    "evaluate",
    "numpy_policy",
    "policy_for",
    "source",
    "train",
]
