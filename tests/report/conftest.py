"""The runs that reports are made of are those of the tests of training."""

from tests.training import conftest as training

make, source, tiny = training.make, training.source, training.tiny
