"""Before a network that is not shipped is trained: does it do what the contract asks for?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from backbones.registry import is_shipped
from bench.config import UsageError
from bench.contract.checks import ADVICE, QUICK, ContractError, declares_a_frozen_config
from bench.contract.probes import Subject

__all__ = ["check_own", "what_stage_two_adds"]

_log = logging.getLogger(__name__)
_checked: set[tuple[Any, ...]] = set()


def check_own(
    name: str, options: Callable[[], Mapping[str, Any]], bands: int, cond_channels: int
) -> None:
    """Run the quick checks on a backbone that is not shipped; once for equal arguments.

    Advice, and what its stage II consists of where that is not everything, go to the log.

    Args:
        name: as registered.
        options: makes the fields of its config; called once it is known that it has one.
        bands: C.
        cond_channels: K.

    Raises:
        ContractError: everything that is missing, in one line.
    """
    if is_shipped(name):
        return
    try:
        declares_a_frozen_config(Subject(name))
    except ContractError as error:
        raise ContractError(f"backbone {name!r}: {error}") from error
    subject = Subject(name, options(), bands, cond_channels)
    key = (subject.cls, repr(sorted(subject.options.items())), bands, cond_channels)
    if key in _checked:
        return
    found = []
    for check in QUICK:
        try:
            check(subject)
        except ContractError as error:
            found.append(str(error))
        except UsageError:
            raise
        except Exception as error:  # a user's own network may raise anything
            found.append(f"{type(error).__name__}: {_first_line(error)}")
        if found and check in QUICK[:4]:
            break  # what comes after would only say the same again
    if found:
        raise ContractError(f"backbone {name!r}: {'; '.join(dict.fromkeys(found))}")
    _checked.add(key)
    for check in ADVICE:
        try:
            check(subject)
        except ContractError as error:
            _log.warning("advice on backbone %r: %s", name, error)
    if added := what_stage_two_adds(subject.net):
        _log.warning("backbone %r: %s", name, added)


def what_stage_two_adds(net: nn.Module) -> str | None:
    """Say what stage II adds to a network without guided blocks or adaptable operators.

    Returns:
        A sentence; None for a network that has both, where it adds everything.
    """
    if net.guided and net.adaptable:
        return None
    parts = ["the predictor's image U as its condition"]
    parts += ["guidance of its blocks by V"] if net.guided else []
    parts += ["low-rank increments of its operators"] if net.adaptable else []
    without = [name for name in ("guided", "adaptable") if not getattr(net, name)]
    return f"with {' and '.join(f'{one}=()' for one in without)} stage II adds {', '.join(parts)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
