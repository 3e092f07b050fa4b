"""What a defence and an attack took, counted by the framework."""

from __future__ import annotations

from leakbench.contracts import Params
from leakbench.metrics.metric import Metric


class Timesteps(Metric[Params]):
    """Time steps of one inference."""

    name = "timesteps"
    title = "T"
    unit = "count"


class TrainingImagesRead(Metric[Params]):
    """Different private training images that the defence asked for, counted by the framework. A defence that is not
    built in has no other way to them where it ran isolated.
    """

    name = "training_images_read"
    title = "Training images read"
    unit = "count"


class Seconds(Metric[Params]):
    """Wall time on the machine named under provenance."""

    name = "seconds"
    title = "Seconds"
    unit = "seconds"


class GradientSteps(Metric[Params]):
    """Optimiser steps that the attack took, for each image."""

    name = "gradient_steps"
    title = "Gradient steps"
    unit = "count"


class Queries(Metric[Params]):
    """Images that the victim answered, of all that the attack asked about."""

    name = "queries"
    title = "Queries"
    unit = "count"
