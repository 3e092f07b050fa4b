"""The controls: networks of which it is known beforehand what leaks, each by the name of the defence that makes it."""

from __future__ import annotations

from collections.abc import Mapping

ANN = "ann"
UNPROTECTED = "han2020"
"""the conversion that protects nothing; asked for by name it is a defence in question"""
UNTRAINED = "random"
SHUFFLED = "shuffled"
OVERFITTED = "overfitted"
"""memorises its few training images, and is converted on them"""
UNSEEN = "unseen"
"""trained as the ANN was, but on none of the images that attacks on membership ask about"""
BLANK = frozenset({UNTRAINED, SHUFFLED, OVERFITTED})
"""those that take nothing but the shape of the ANN"""
SHAPE_ALONE = BLANK | {"stbp", "tdbn", "lee2020", "dpsgd"}
"""and the defences that do so: they train a network anew"""
ROLES: Mapping[str, str] = {
    ANN: "unprotected ANN",
    UNPROTECTED: "unprotected conversion",
    UNTRAINED: "untrained network",
    OVERFITTED: "overfitted network",
    UNSEEN: "network trained on other images",
}
"""defence -> what it is as a control, in words"""
